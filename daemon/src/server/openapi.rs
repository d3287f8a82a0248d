//! The description of the API for programs.

use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

use super::handlers;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ringfenced",
        description = "JSON over HTTP/1.1 on the daemon's Unix socket. Times are seconds since 1970, durations seconds."
    ),
    paths(
        handlers::status,
        handlers::rules,
        handlers::apply,
        handlers::confirm,
        handlers::rollback,
        handlers::history,
        handlers::generation,
        handlers::diff,
        handlers::add_entry,
        handlers::entries,
        handlers::undo,
        handlers::set,
        handlers::change_set,
        handlers::connections,
        handlers::kill_connections,
        handlers::explain,
        handlers::explain_access,
        handlers::mode,
        handlers::off,
        handlers::on,
        handlers::openapi,
    )
)]
struct Api;

/// The description.
#[must_use]
pub fn document() -> Document {
    Api::openapi()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::server::routes::ROUTES;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let json = serde_json::to_value(document()).unwrap();
        let mut described = BTreeSet::new();
        for (path, operations) in json["paths"].as_object().unwrap() {
            described.extend(operations.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
        }
        let routes = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        assert_eq!(described, routes);
        assert!(json["components"]["schemas"]["Status"].is_object(), "the bodies' schemas come along");
    }
}
