//! The language as a JSON Schema, for editors: it completes keys and marks most mistakes while they are typed.
//!
//! Looser than the loader, never stricter: what needs two places to judge (a set's type, a port's protocol) is left to
//! `ringctl check`.

use ringfence_abi::connection::{MAX_CAPACITY as CONNECTIONS, MIN_CAPACITY, TIMEOUT_NAMES};
use ringfence_abi::counter::FLOOR_NAMES;
use serde_json::{Map, Value, json};

use crate::document::{
    ACCESS_KEYS, BAD_LINES, FORMATS, HOST_FIELDS, MAX_CAPACITY, OPERATIONS, PACKET_KEYS, SEPARATORS,
};
use crate::services::{ICMP_MESSAGES, PROTOCOLS};

/// The schema (draft 2020-12) of a policy file.
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ringfence policy",
        "type": "object",
        "required": ["ringfence"],
        "additionalProperties": false,
        "properties": {
            "ringfence": {"const": 1, "description": "Version of the language."},
            "mode": mode(),
            "sets": {"type": "object", "minProperties": 1, "propertyNames": name(), "additionalProperties": set()},
            "network": network(),
            "host": {
                "type": "object",
                "additionalProperties": false,
                "properties": {"default": {"enum": ["allow", "deny"]}, "protect_self": {"type": "boolean"}, "rules": list(&json!({"$ref": "#/$defs/host_rule"}))},
            },
            "groups": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": name(),
                "additionalProperties": list(&json!({"anyOf": [{"$ref": "#/$defs/rule"}, {"$ref": "#/$defs/host_rule"}]})),
            },
            "tests": list(&test()),
        },
        "$defs": {"rule": rule(), "host_rule": host_rule(), "fields": fields(), "host_fields": host_fields()},
    })
}

fn mode() -> Value {
    json!({"enum": ["enforce", "audit"]})
}

fn name() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.-]{0,63}$"})
}

fn list(item: &Value) -> Value {
    json!({"type": "array", "items": item, "minItems": 1})
}

fn object(properties: &Value) -> Value {
    json!({"type": "object", "minProperties": 1, "additionalProperties": false, "properties": properties})
}

// One value, a list of them, or `{in, not}`.
fn selection(item: &Value) -> Value {
    let some = json!({"anyOf": [item, list(item)]});
    json!({"anyOf": [item, list(item), object(&json!({"in": some, "not": some}))]})
}

// The loader reads text, so a number in quotes is a number too.
fn number() -> Value {
    json!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^(0x[0-9A-Fa-f]+|[0-9]+)$"}]})
}

fn numbers() -> Value {
    let range = "^(0x[0-9A-Fa-f]+|[0-9]+)( *- *(0x[0-9A-Fa-f]+|[0-9]+))?$";
    selection(&json!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": range}]}))
}

fn names_or_number<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let names: Vec<&str> = names.collect();
    json!({"anyOf": [{"enum": names}, number()]})
}

fn address() -> Value {
    json!({"type": "string", "pattern": "^(\\$[A-Za-z_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]+(/[0-9]+)?|[0-9A-Fa-f:.]+ *- *[0-9A-Fa-f:.]+)$"})
}

fn port() -> Value {
    let text = "^(\\$[A-Za-z_][A-Za-z0-9_.-]*|[a-z][a-z0-9-]*|(0x[0-9A-Fa-f]+|[0-9]+)( *- *(0x[0-9A-Fa-f]+|[0-9]+))?)$";
    json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 65535}, {"type": "string", "pattern": text}]})
}

fn interface() -> Value {
    json!({"type": "string", "pattern": "^[^/:\\s$\\[\\]{}][^/:\\s\\[\\]{}]{0,14}$"})
}

fn set() -> Value {
    let value = json!({"type": ["string", "integer"]});
    let dynamic = object(&json!({
        "dynamic": {"const": true},
        "timeout": {"type": "string", "pattern": "^[0-9]+[smhdw]$"},
        "capacity": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_CAPACITY}, {"type": "string"}]},
        "full": {"enum": ["refuse", "evict-oldest"]},
        "never": {"anyOf": [address(), list(&address())]},
    }));
    let file = object(&json!({
        "file": {"type": "string"},
        "format": {"enum": FORMATS},
        "column": value,
        "separator": {"enum": SEPARATORS},
        "header": {"type": "boolean"},
        "name": {"type": "string"},
        "bad_lines": {"enum": BAD_LINES},
        "optional": {"type": "boolean"},
        "shrink": {"type": "boolean"},
    }));
    json!({"anyOf": [value, list(&value), file, dynamic]})
}

fn network() -> Value {
    let floor: Map<String, Value> =
        FLOOR_NAMES.iter().map(|line| ((*line).to_owned(), json!({"type": "boolean"}))).collect();
    let chain = object(&json!({
        "default": {"enum": ["accept", "drop", "reject"]},
        "stateless": {"type": "boolean"},
        "protect": {"enum": ["syn-flood"]},
        "rules": list(&json!({"$ref": "#/$defs/rule"})),
    }));
    let duration = json!({"type": "string", "pattern": "^[0-9]+[smhdw]$"});
    let timeouts: Map<String, Value> =
        TIMEOUT_NAMES.iter().map(|state| ((*state).to_owned(), duration.clone())).collect();
    let capacity =
        json!({"anyOf": [{"type": "integer", "minimum": MIN_CAPACITY, "maximum": CONNECTIONS}, {"type": "string"}]});
    object(&json!({
        "connections": object(&json!({"capacity": capacity, "timeouts": object(&Value::Object(timeouts))})),
        "interfaces": {"anyOf": [interface(), list(&interface())]},
        "floor": object(&Value::Object(floor)),
        "ingress": chain,
        "egress": chain,
    }))
}

fn fields() -> Value {
    let icmp = json!({"anyOf": [{"enum": ICMP_MESSAGES.iter().map(|(name, ..)| *name).collect::<Vec<_>>()}, {"type": "integer", "minimum": 0, "maximum": 255}, {"type": "string", "pattern": "^[0-9]"}]});
    let fields = object(&json!({
        "from": selection(&address()),
        "to": selection(&address()),
        "proto": selection(&names_or_number(PROTOCOLS.iter().map(|(name, _)| *name))),
        "port": selection(&port()),
        "source_port": selection(&port()),
        "interface": selection(&interface()),
        "family": selection(&json!({"enum": ["ipv4", "ipv6"]})),
        "state": selection(&json!({"enum": ["new", "established", "related", "invalid"]})),
        "flags": selection(&json!({"type": "string", "pattern": "^ *!?(fin|syn|rst|psh|ack|urg|ece|cwr) *(, *!?(fin|syn|rst|psh|ack|urg|ece|cwr) *)*$"})),
        "icmp": selection(&icmp),
        "vlan": numbers(),
        "dscp": numbers(),
        "mark": numbers(),
        "length": numbers(),
        "fragment": {"type": "boolean"},
    }));
    json!({"anyOf": [{"const": "any"}, fields]})
}

fn log() -> Value {
    json!({"anyOf": [{"const": true}, object(&json!({"rate": {"type": "string"}, "sample": {"type": "string", "pattern": "^1/"}}))]})
}

fn limit() -> Value {
    let rate = json!({"type": "string", "pattern": "^[0-9]+[A-Za-z]*/ *[a-z]+$"});
    object(
        &json!({"rate": rate, "over": rate, "connections": number(), "burst": number(), "per": {"type": "string", "pattern": "^(source|destination|rule)(/[0-9]+)?$"}}),
    )
}

// A rule: the keys beside the verb, and exactly one of the verbs.
fn with_verbs(properties: &Value, verbs: &[&str]) -> Value {
    let mut rule = object(properties);
    rule["oneOf"] = verbs.iter().map(|verb| json!({"required": [verb]})).collect();
    rule
}

fn rule() -> Value {
    let fields = json!({"$ref": "#/$defs/fields"});
    let set = json!({"type": "string", "pattern": "^\\$"});
    with_verbs(
        &json!({
            "accept": fields, "drop": fields, "reject": fields, "count": fields,
            "use": name(),
            "when": fields,
            "name": name(),
            "comment": {"type": ["string", "number", "boolean"]},
            "mode": mode(),
            "log": log(),
            "limit": limit(),
            "add": object(&json!({"source": set, "destination": set, "unproven": {"type": "boolean"}})),
            "protect": {"enum": ["syn-flood"]},
        }),
        &["accept", "drop", "reject", "count", "use"],
    )
}

fn host_fields() -> Value {
    let value = selection(&json!({"type": ["string", "integer"]}));
    let mut fields: Map<String, Value> = HOST_FIELDS.iter().map(|field| ((*field).to_owned(), value.clone())).collect();
    fields.insert("op".into(), selection(&json!({"enum": OPERATIONS})));
    for field in ["anonymous", "owner", "container"] {
        fields.insert(field.into(), json!({"type": "boolean"}));
    }
    json!({"anyOf": [{"const": "any"}, object(&Value::Object(fields))]})
}

fn host_rule() -> Value {
    let fields = json!({"$ref": "#/$defs/host_fields"});
    with_verbs(
        &json!({
            "allow": fields, "deny": fields, "count": fields,
            "use": name(),
            "when": fields,
            "rules": list(&json!({"$ref": "#/$defs/host_rule"})),
            "default": {"enum": ["allow", "deny"]},
            "name": name(),
            "comment": {"type": ["string", "number", "boolean"]},
            "mode": mode(),
            "log": log(),
            "limit": limit(),
        }),
        &["allow", "deny", "count", "use", "rules"],
    )
}

// One value a field; the caller may have several groups and ancestors.
fn access() -> Value {
    let value = json!({"type": ["string", "integer", "boolean"]});
    let mut keys: Map<String, Value> = ACCESS_KEYS.iter().map(|key| ((*key).to_owned(), value.clone())).collect();
    for key in ["gid", "ancestor"] {
        keys.insert(key.into(), json!({"anyOf": [value, list(&value)]}));
    }
    keys.insert("op".into(), json!({"enum": OPERATIONS[..OPERATIONS.len() - 1]}));
    let mut access = object(&Value::Object(keys));
    access["required"] = json!(["op"]);
    access
}

fn test() -> Value {
    let value = json!({"type": ["string", "integer", "boolean"]});
    let packet: Map<String, Value> = PACKET_KEYS.iter().map(|key| ((*key).to_owned(), value.clone())).collect();
    let mut test = object(&json!({
        "packet": object(&Value::Object(packet)),
        "access": access(),
        "expect": {"enum": ["accept", "drop", "reject", "allow", "deny"]},
        "rule": {"type": "string"},
        "comment": {"type": ["string", "number", "boolean"]},
    }));
    test["required"] = json!(["expect"]);
    test["oneOf"] = json!([{"required": ["packet"]}, {"required": ["access"]}]);
    test
}
