//! Renders the document.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::openmetrics;
use crate::problem::{self, Code, PantavisorError, ProblemBody};
use crate::routes::{Access, Answer, Body, ROUTES, Route, Shape};

/// What every route may be refused with.
const EVERYWHERE: &[Code] = &[Code::UnknownCaller, Code::NotAllowed, Code::Internal];

/// Renders the document.
fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route, &mut generator);
    }
    for schema in [
        generator.subschema_for::<PantavisorError>(),
        generator.subschema_for::<ProblemBody>(),
        generator.subschema_for::<crate::messages::ours::Event>(),
    ] {
        debug_assert!(
            schema
                .as_object()
                .is_some_and(|object| object.contains_key("$ref"))
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Coxswain control socket",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Plain HTTP/1.x over a UNIX stream socket. Pantavisor's resources answer errors as \
                {\"Error\":\"text\"} with the code in the header Coxswain-Problem; ours, and all of them for a client that \
                accepts application/problem+json, answer RFC 9457 problems.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)},
    })
}

/// Renders the text of the committed file.
fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("a value always serialises");
    text.push('\n');
    text
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "x-access": match route.access {
            Access::Anyone => "anyone",
            Access::Own => "own",
            Access::Monitor => "monitor",
            Access::Mgmt => "mgmt",
        },
        "responses": responses(route, generator),
    });
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = request_body(route, generator) {
        operation["requestBody"] = body;
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
    });
    let in_query = route.query.iter().map(|query| {
        let kind = if query.number { "integer" } else { "string" };
        json!({
            "name": query.name,
            "in": "query",
            "description": query.summary,
            "schema": {"type": kind},
        })
    });
    let by = (route.access == Access::Mgmt).then(|| {
        json!({
            "name": problem::CLIENT_HEADER,
            "in": "header",
            "description": "for claims: which program of the host asks; a container is known without it",
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        })
    });
    in_path.chain(in_query).chain(by).collect()
}

fn request_body(route: &Route, generator: &mut SchemaGenerator) -> Option<Value> {
    let (media, schema) = match (route.body, route.request) {
        (Body::None, _) => return None,
        (Body::Limit(_), Some(schema)) => ("application/json", schema(generator).to_value()),
        (Body::Limit(_) | Body::Stream, _) => ("application/octet-stream", json!({})),
    };
    let mut body = json!({"required": true, "content": {media: {"schema": schema}}});
    if let Body::Limit(bytes) = route.body {
        body["x-bytes-max"] = bytes.into();
    }
    Some(body)
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    let content = match route.answer {
        Answer::Empty => None,
        Answer::Json(schema) => Some(("application/json", schema(generator).to_value())),
        Answer::Bytes => Some(("application/octet-stream", json!({}))),
        Answer::Manifest => Some(("application/json", json!({"type": "object"}))),
        Answer::Text => Some(("text/plain", json!({"type": "string"}))),
        Answer::Metrics => Some((openmetrics::MEDIA_TYPE, json!({"type": "string"}))),
        Answer::Events => Some(("text/event-stream", json!({"type": "string"}))),
    };
    let mut success = json!({"description": route.summary});
    if let Some((media, schema)) = content {
        success["content"] = json!({media: {"schema": schema}});
    }
    for (status, words) in route.also {
        let mut other = success.clone();
        other["description"] = (*words).into();
        if matches!(status, 204 | 304)
            && let Some(other) = other.as_object_mut()
        {
            other.remove("content");
        }
        responses.insert(status.to_string(), other);
    }
    responses.insert("200".to_owned(), success);

    let mut codes: Vec<Code> = EVERYWHERE.iter().chain(route.problems).copied().collect();
    // A name that can be none fits no route at all.
    if route.path.contains('{') {
        codes.push(Code::UnknownEndpoint);
    }
    if !matches!(route.body, Body::None) {
        codes.extend([Code::BodyTooLarge, Code::BodyIncomplete, Code::BodyTimeout]);
    }
    // Its header may say no name.
    if route.access == Access::Mgmt {
        codes.push(Code::BadHeader);
    }
    codes.sort_unstable();
    codes.dedup();
    for code in codes {
        let status = status_on(route, code).to_string();
        let words = format!("`{code}`: {}", code.title());
        match responses
            .get_mut(&status)
            .and_then(|known| known["description"].as_str())
        {
            Some(known) => {
                let both = format!("{known}; {words}");
                responses[&status]["description"] = both.into();
            }
            None => {
                responses.insert(
                    status,
                    json!({"description": words, "content": problem_content(route.shape)}),
                );
            }
        }
    }
    // It is answered before the route, and so whose resource it is, is known.
    if route.path.contains('{') {
        let status = Code::UnknownEndpoint.status().to_string();
        responses[&status]["content"] = problem_content(Shape::Pantavisor);
    }
    responses.into()
}

/// The status of a problem on a route: Pantavisor uses some where nobody would expect them.
fn status_on(route: &Route, code: Code) -> u16 {
    match (route.shape, route.method, code) {
        (Shape::Pantavisor, _, Code::BodyTooLarge) => 507,
        (Shape::Pantavisor, crate::Method::Get, Code::NoSuchObject) => 400,
        _ => code.status(),
    }
}

fn problem_content(shape: Shape) -> Value {
    let problem = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
    match shape {
        Shape::Pantavisor => json!({
            "application/json": {"schema": {"$ref": "#/components/schemas/PantavisorError"}},
            (problem::MEDIA_TYPE): problem,
        }),
        Shape::Ours => json!({(problem::MEDIA_TYPE): problem}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_EXPECT=1 cargo test -p api` writes the file anew.
    #[test]
    fn the_committed_document_is_fresh() {
        expect_test::expect_file!["../../openapi.json"].assert_eq(&text());
    }

    #[test]
    fn every_reference_resolves() {
        let document = document();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 20, "the document refers to its schemas");
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("references are local");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    references.push(reference.clone());
                }
                map.values().for_each(|value| collect(value, references));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
