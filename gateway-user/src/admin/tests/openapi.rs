//! `docs/openapi.json` against the pages as they are served: each page is in it, and each answer is
//! what it says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Answer, Site, TOKEN, site};
use crate::admin::PAGES;

fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What is wrong with a value by a schema of the document; the words that it may use are few, and
/// any other is a mistake of the document.
fn mistakes(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut all = Vec::new();
    let of = |schema: &Value, value: &Value, at: &str| mistakes(document, schema, value, at);
    for (word, wanted) in schema.as_object().unwrap() {
        match word.as_str() {
            "description" => {}
            "$ref" => {
                let pointer = wanted.as_str().unwrap().trim_start_matches('#');
                let found = document.pointer(pointer);
                all.extend(of(found.unwrap_or_else(|| panic!("no {wanted}")), value, at));
            }
            "oneOf" => {
                let fits = |schema: &&Value| of(schema, value, at).is_empty();
                if wanted.as_array().unwrap().iter().filter(fits).count() != 1 {
                    all.push(format!("{at}: {value} is not one of {wanted}"));
                }
            }
            "type" => {
                let types = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                if !types.iter().any(|name| is_of(name.as_str().unwrap(), value)) {
                    all.push(format!("{at}: {value} is no {wanted}"));
                }
            }
            "enum" if !wanted.as_array().unwrap().contains(value) => {
                all.push(format!("{at}: {value} is none of {wanted}"));
            }
            "enum" => {}
            "required" => {
                let missing = wanted.as_array().unwrap().iter().filter(|name| {
                    value.is_object() && value.get(name.as_str().unwrap()).is_none()
                });
                all.extend(missing.map(|name| format!("{at}: {name} is missing")));
            }
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        all.extend(of(schema, value, &format!("{at}.{name}")));
                    }
                }
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().unwrap();
                let unknown = value.as_object().into_iter().flatten();
                let unknown = unknown.filter(|(name, _)| !known.contains_key(*name));
                all.extend(unknown.map(|(name, _)| format!("{at}: {name} is not documented")));
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    all.extend(of(wanted, value, &format!("{at}[{index}]")));
                }
            }
            word => panic!("{at}: the test does not know {word:?}"),
        }
    }
    all
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        name => panic!("no type {name:?}"),
    }
}

/// Holds an answer against what the document says of `method path` and its status.
fn hold(document: &Value, method: &str, path: &str, answer: &Answer) {
    let operation = &document["paths"][path][method];
    let status = if answer.status == 200 { "200" } else { "default" };
    let schema = &operation["responses"][status]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path} has no schema for {status}");
    let value = serde_json::from_str(&answer.body).unwrap();
    let found = mistakes(document, schema, &value, path);
    assert!(found.is_empty(), "{found:#?}\n{}", answer.body);
}

#[test]
fn every_page_is_documented_and_nothing_else() {
    let document = document();
    let documented = document["paths"].as_object().unwrap().keys();
    let documented: BTreeSet<&str> = documented.map(String::as_str).collect();
    assert_eq!(documented, PAGES.iter().copied().collect());
}

#[tokio::test]
async fn every_page_takes_the_methods_that_are_documented_and_no_others() {
    let (document, site) = (document(), site().await);
    for path in PAGES {
        for method in ["get", "post", "put", "delete"] {
            let answer = site.ask(&method.to_uppercase(), path).await;
            let is_documented = document["paths"][path].get(method).is_some();
            assert_eq!(answer.status != 405, is_documented, "{method} {path}: {}", answer.status);
        }
    }
}

/// A body that `POST path` does something for.
fn example(path: &str) -> Value {
    match path {
        "/v1/rollback" => json!({ "pool": "web", "release": true }),
        "/v1/models/load" => json!({ "path": "/nowhere" }),
        "/v1/models/stage" => json!({ "task": "fault", "stage": "canary" }),
        "/v1/models/rollback" => json!({ "task": "fault" }),
        "/v1/label" => json!({ "backend": "a", "faulty": true, "from_seconds_ago": 30 }),
        "/v1/route" => {
            json!({ "pool": "web", "path": "/users/1", "body_bytes": 9, "client": "192.0.2.1" })
        }
        "/v1/guard/limit" => json!({ "vip": "site", "new_per_second": 5 }),
        "/v1/guard/keep" => json!({ "keep_confirmed": true }),
        "/v1/guard/challenge" => json!({ "vip": "site", "mode": "auto" }),
        "/v1/guard" => json!({ "list": "deny", "add": ["192.0.2.0/24"] }),
        "/v1/recover" => json!({ "backend": "a", "act": true }),
        path => panic!("no example for {path}: add one"),
    }
}

async fn forecast_is_there(site: &Site) {
    let there = async {
        while site.get("/v1/forecast?pool=web").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), there).await.expect("a forecast");
}

#[tokio::test]
async fn every_answer_is_what_is_documented() {
    let (document, site) = (document(), site().await);
    forecast_is_there(&site).await;
    // Nothing was asked of this site yet, so that no request is kept.
    hold(&document, "get", "/v1/requests", &site.get("/v1/requests").await);
    for path in [
        "/v1/state",
        "/v1/decisions",
        "/v1/models",
        "/v1/forecast?pool=web",
        "/v1/history?pool=web",
        "/v1/guard",
        "/v1/client?addr=192.0.2.1",
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        hold(&document, "get", path.split('?').next().unwrap(), &answer);
    }
    let posts = PAGES.iter().filter(|path| document["paths"][path].get("post").is_some());
    for path in posts {
        let body = example(path);
        let operation = &document["paths"][path]["post"];
        let asked = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(mistakes(&document, asked, &body, path), Vec::<String>::new());
        hold(&document, "post", path, &site.post(path, &body, TOKEN).await);
        // Wrong ones are errors as documented.
        hold(&document, "post", path, &site.post(path, &json!({ "no": "such" }), TOKEN).await);
        if operation.get("security") == Some(&json!([{ "token": [] }])) {
            let refused = site.post(path, &body, "another token than that").await;
            assert_eq!(refused.status, 401, "{path}");
        }
    }
}

#[test]
fn a_field_that_is_missing_wrong_or_undocumented_is_found() {
    let document = json!({});
    let schema = json!({
        "type": "object",
        "properties": { "a": { "type": "integer" } },
        "required": ["a"],
        "additionalProperties": false,
    });
    let found = |value: Value| mistakes(&document, &schema, &value, "x").len();
    assert_eq!(found(json!({ "a": 1 })), 0);
    for wrong in [json!({}), json!({ "a": "1" }), json!({ "a": 1, "b": 2 }), json!([])] {
        assert_eq!(found(wrong.clone()), 1, "{wrong}");
    }
}
