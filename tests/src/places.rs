//! Where arriving packets are judged, for tests that do the same at each place; and how their policies begin.

use anyhow::{Result, ensure};

use crate::{daemon::Daemon, netns::Site};

/// Where the server judges what arrives, if it may have to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At XDP.
    Xdp,
    /// At TC, because a rule reads `mark`.
    Tc,
    /// At TC, because the device is a veth, whose other end does not poll.
    Veth,
}

/// All of them.
pub const PLACES: [At; 3] = [At::Xdp, At::Tc, At::Veth];

impl At {
    /// A site whose server can judge there.
    pub fn site(self) -> Result<Site> {
        if self == Self::Veth { Site::new() } else { Site::cabled() }
    }

    /// The line of YAML that must be among the rules for it.
    #[must_use]
    pub fn rule(self) -> &'static str {
        if self == Self::Tc { "      - count: {mark: 7}\n" } else { "" }
    }

    /// Fails unless the daemon judges there.
    pub fn is_where(self, daemon: &Daemon) -> Result<()> {
        let hook = daemon.ingress()?;
        ensure!((hook.how.as_deref() == Some("xdp-native")) == (self == Self::Xdp), "{self:?}: {hook:?}");
        let says_why = hook.because.as_deref().is_some_and(|why| why.contains("veth"));
        ensure!(self != Self::Veth || says_why, "{hook:?}");
        Ok(())
    }
}

/// A policy for `eth0` that lets nothing in but what these rules say (lines of YAML, each a list's element). It follows no
/// connections.
#[must_use]
pub fn closed(rules: &str) -> String {
    format!(
        "ringfence: 1\nnetwork:\n  interfaces: [eth0]\n  ingress:\n    default: drop\n    stateless: true\n    \
         rules:\n{rules}"
    )
}
