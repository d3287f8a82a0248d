//! Network interfaces: which there are, which a policy covers, and by which hook.

pub mod attachments;
pub mod ethtool;
pub mod link;
pub mod resolvers;
pub mod select;
pub mod watch;
