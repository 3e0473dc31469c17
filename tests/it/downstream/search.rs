//! The ingest pipeline and the index template, on a node of OpenSearch 2.19. Elasticsearch is in no registry; the processors
//! that the pipeline uses are older than the fork. Two types of fields are Elasticsearch's alone and have stand-ins.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, time::Duration};

use reqwest::{Client, Method};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::{jars, samples, shipped};
use crate::{
    leash::Leash,
    scratch::{Scratch, free_port},
    world::PATIENCE,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_maps_every_sample_loses_nothing_and_refuses_what_comes_again() {
    let stream = Stream::new("samples").await;
    let samples = samples();
    let records: Vec<_> = samples.iter().map(|(_, line)| json!({ "message": line })).collect();
    let first = stream.create(&records).await;
    let documents = stream.all().await;

    let (mut table, mut seen) = (String::new(), BTreeMap::new());
    let mut name = "";
    for ((file, line), (status, id)) in samples.iter().zip(&first) {
        if name != file {
            name = file;
            writeln!(table, "\n{file}").unwrap();
        }
        // A record that is twice in the samples is created once.
        let repeated = seen.insert(id, line).is_some();
        assert_eq!(*status, if repeated { 409 } else { 201 }, "{line}");
        if repeated {
            continue;
        }
        let document = &documents[id];
        assert_eq!(document["event"]["original"].as_str(), Some(line.as_str()), "the bytes");
        if document["event"]["kind"] != "pipeline_error" {
            assert_whole(&readable(line), document);
        }
        assert_of_ecs(document);
        writeln!(table, "{}", summary(document)).unwrap();
    }
    insta::assert_snapshot!("mapping", table);

    let guids = |(_, id): &&(u64, String)| id.len() == 36;
    let again = stream.create(&records).await;
    assert!(first.iter().zip(&again).filter(|(first, _)| guids(first)).all(|(_, again)| again.0 == 409));
    assert_eq!(first.iter().filter(guids).count() - again.iter().filter(|(status, _)| *status == 409).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_every_shape_become_addresses_or_stay_text_and_no_record_is_refused() {
    let stream = Stream::new("addresses").await;
    let shapes = [
        ("192.0.2.7", Some(("192.0.2.7", None))),
        ("192.0.2.7:51234", Some(("192.0.2.7", Some(51234)))),
        ("[192.0.2.7]:51234", Some(("192.0.2.7", Some(51234)))),
        ("2001:db8::7", Some(("2001:db8::7", None))),
        ("[2001:db8::7]", Some(("2001:db8::7", None))),
        ("[2001:db8::7]:443", Some(("2001:db8::7", Some(443)))),
        ("::ffff:192.0.2.7", Some(("192.0.2.7", None))),
        ("[::ffff:192.0.2.7]:80", Some(("192.0.2.7", Some(80)))),
        ("fe80::1%12", Some(("fe80::1", None))),
        ("192.0.2.7, 198.51.100.1", None),
        ("mail.contoso.example", None),
        ("<null>", None),
        ("010.001.002.003", Some(("010.001.002.003", None))), // no address to the index, which leaves it out
        ("a:b", Some(("a:b", None))),                         // nor this
        ("99999.2.3.4", None),
    ];
    let records: Vec<_> = shapes.iter().map(|(address, _)| json!({ "ClientIP": address })).collect();
    let messages: Vec<_> = records.iter().map(|record| json!({ "message": record.to_string() })).collect();
    let created = stream.create(&messages).await;
    let documents = stream.all().await;
    for ((address, expected), (status, id)) in shapes.iter().zip(&created) {
        let document = &documents[id];
        assert_eq!(*status, 201, "{address}");
        assert_eq!(document["client"]["address"], *address);
        assert_eq!(document["source"]["ip"].as_str(), expected.map(|(ip, _)| ip), "{address}");
        assert_eq!(document["source"]["port"].as_u64(), expected.and_then(|(_, port)| port), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shipper_has_read_and_named_is_mapped_like_the_record_alone() {
    let stream = Stream::new("shippers").await;
    let parsed = |(_, line): &(String, String)| Some((line.clone(), serde_json::from_str::<Map<_, _>>(line).ok()?));
    let records: Vec<_> = samples().iter().filter_map(parsed).collect();
    // As logstash.conf and filebeat.yml send it, and as plain text under an `_id` that no record has.
    let read = |(place, (line, record)): (usize, &(String, Map<String, Value>))| json!({ "_id": format!("read-{place}"), "message": line, "o365audit": record });
    let plain = |(place, (line, _)): (usize, &(String, _))| json!({ "_id": format!("plain-{place}"), "message": line });
    let documents: Vec<_> = records.iter().enumerate().map(read).chain(records.iter().enumerate().map(plain)).collect();
    let created = stream.create(&documents).await;
    assert!(created.iter().all(|(status, _)| *status == 201), "two have one name: {created:?}");
    let all = stream.all().await;
    let mut errors = 0;
    for (place, (line, _)) in records.iter().enumerate() {
        let (read, plain) = (&all[&format!("read-{place}")], &all[&format!("plain-{place}")]);
        if plain["event"]["kind"] == "pipeline_error" {
            errors += 1; // a member that is there twice, of which a shipper has seen one only
            continue;
        }
        assert_eq!(summary(read), summary(plain), "{line}");
        assert_eq!(read["event"]["original"], plain["event"]["original"]);
    }
    assert_eq!(errors, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_record_gets_only_types_that_ecs_allows_it_and_only_alerts_are_alerts() {
    let stream = Stream::new("kinds").await;
    let operations =
        ["UserLoggedIn", "FileAccessed", "New-X", "Set-X", "Remove-X", "Send", "DLPRuleMatch", "DlpRuleUndo"];
    let records: Vec<_> = (1..=107).flat_map(|kind| operations.map(|operation| (kind, operation))).collect();
    let message = |(kind, operation): &(u32, &str)| json!({ "message": json!({ "RecordType": kind, "Operation": operation }).to_string() });
    let created = stream.create(&records.iter().map(message).collect::<Vec<_>>()).await;
    let documents = stream.all().await;
    assert_eq!(documents.len(), records.len());
    for ((kind, operation), (_, id)) in records.iter().zip(&created) {
        assert_of_ecs(&documents[id]);
        let alert = *kind == 40 || *operation == "DLPRuleMatch";
        let expected = if alert { "alert" } else { "event" };
        assert_eq!(documents[id]["event"]["kind"], expected, "{kind} {operation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guid_in_another_letter_case_is_the_same_record() {
    let stream = Stream::new("cases").await;
    let id = "8c5b7f1e-0d2a-4e6b-9f3c-d1a2b3c4e5f6".to_owned();
    let record = |id: String| json!({ "message": json!({ "Id": id }).to_string() });
    let created = stream.create(&[record(id.to_uppercase()), record(id.clone())]).await;
    assert_eq!(created, [(201, id.clone()), (409, id.clone())]);
    assert_eq!(stream.all().await[&id]["event"]["id"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_that_a_shipper_names_can_be_searched_for() {
    let stream = Stream::new("tenants").await;
    let record = |tenant: &str| json!({ "message": "{}", "labels": { "tenant_id": tenant } });
    stream.create(&[record("contoso"), record("fabrikam")]).await;
    let query = json!({ "query": { "term": { "labels.tenant_id": "contoso" } } }).to_string();
    let found = stream.node.send(Method::POST, &format!("/{}/_count", stream.name), Some(query)).await.unwrap();
    assert_eq!(found["count"], 1);
}

/// One line of the table: what ECS makes of a record.
fn summary(document: &Value) -> String {
    let event = &document["event"];
    let mut line = document["@timestamp"].as_str().unwrap_or("no time").to_owned();
    for (name, value) in [
        ("", &event["action"]),
        ("kind", &event["kind"]),
        ("category", &event["category"][0]),
        ("type", &event["type"][0]),
        ("outcome", &event["outcome"]),
        ("by", &document["user"]["name"]),
        ("of", &document["user"]["domain"]),
        ("from", &document["source"]["ip"]),
        ("port", &document["source"]["port"]),
        ("with", &document["user_agent"]["original"]),
        ("error", &document["error"]["message"][0]),
    ] {
        if !value.is_null() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
            write!(line, " | {name}{}{text}", if name.is_empty() { "" } else { " " }).unwrap();
        }
    }
    line
}

/// Every member of the record is in the document, moved or as it was.
fn assert_whole(line: &str, document: &Value) {
    let record: Map<String, Value> = serde_json::from_str(line).unwrap();
    let kept = &document["o365"]["audit"];
    for (member, value) in &record {
        let moved = match member.as_str() {
            "Id" => &document["event"]["id"], // a GUID in lower case
            "Operation" => &document["event"]["action"],
            "Workload" => &document["event"]["provider"],
            "OrganizationId" => &document["organization"]["id"],
            "UserId" => &document["user"]["id"],
            "UserAgent" => &document["user_agent"]["original"],
            "ClientIP" | "ClientIPAddress" | "ActorIpAddress" => &document["client"]["address"],
            _ => &Value::Null,
        };
        let lower = |value: &Value| Value::from(value.as_str().unwrap_or_default().to_lowercase());
        let lowers = ["Id", "OrganizationId"].contains(&member.as_str());
        let same = kept.get(member) == Some(value) || moved == value || lowers && *moved == lower(value);
        // A number of many digits is written in another way.
        assert!(same || value.is_number() && kept.get(member).is_some(), "{member} of {line} is not in {document}");
    }
}

/// ECS allows each category some types only. Source: ECS field reference, "Categorization field: event.category".
fn assert_of_ecs(document: &Value) {
    let (category, kind) = (&document["event"]["category"][0], &document["event"]["type"][0]);
    let allowed: &[&str] = match category.as_str() {
        Some("authentication") => &["start", "end", "info"],
        Some("configuration") => &["access", "change", "creation", "deletion", "info"],
        Some("email") => &["info"],
        Some("file") => &["access", "change", "creation", "deletion", "info"],
        Some("iam") => &["admin", "change", "creation", "deletion", "group", "info", "user"],
        None => return, // then any type is
        Some(other) => panic!("{other} is in no row of this table"),
    };
    assert!(kind.as_str().is_some_and(|kind| allowed.contains(&kind)), "{category} with {kind}: {document}");
}

/// A data stream of one test. One node serves all.
struct Stream {
    name: String,
    node: &'static Node,
}

impl Stream {
    async fn new(namespace: &str) -> Self {
        static NODE: OnceCell<Node> = OnceCell::const_new();
        let node = NODE.get_or_init(Node::start).await;
        Self { name: format!("logs-o365feed.audit-{namespace}"), node }
    }

    /// Creates a document of each, under its member `_id` if it has one: status and `_id`, in the same order.
    async fn create(&self, documents: &[Value]) -> Vec<(u64, String)> {
        let mut body = String::new();
        for document in documents {
            // A data stream wants a time, which the pipeline replaces by the record's.
            let mut document = document.clone();
            document["@timestamp"] = json!("2000-01-01T00:00:00Z");
            let id = document.as_object_mut().unwrap().remove("_id");
            let named = id.map_or_else(|| json!({}), |id| json!({ "_id": id }));
            writeln!(body, "{}\n{document}", json!({ "create": named })).unwrap();
        }
        let path = format!("/{}/_bulk?refresh=true", self.name);
        let answer = self.node.send(Method::POST, &path, Some(body)).await.unwrap();
        let items = answer["items"].as_array().unwrap();
        assert_eq!(items.len(), documents.len());
        let outcome = |item: &Value| {
            let created = &item["create"];
            let status = created["status"].as_u64().unwrap();
            assert!(matches!(status, 201 | 409), "refused: {created}");
            (status, created["_id"].as_str().unwrap().to_owned())
        };
        items.iter().map(outcome).collect()
    }

    /// All documents by their `_id`.
    async fn all(&self) -> BTreeMap<String, Value> {
        let found = self.node.send(Method::GET, &format!("/{}/_search?size=1000", self.name), None).await.unwrap();
        let hits = found["hits"]["hits"].as_array().unwrap().clone();
        hits.into_iter().map(|hit| (hit["_id"].as_str().unwrap().to_owned(), hit["_source"].clone())).collect()
    }
}

/// A node of OpenSearch on 127.0.0.1 with the shipped pipeline and template, gone with the tests.
struct Node {
    leash: Leash, // before `_files`: the process ends first
    _files: Scratch,
    url: String,
}

impl Node {
    async fn start() -> Self {
        let (files, port) = (Scratch::new("search"), free_port());
        let (dir, log) = (files.path().to_owned(), files.path().join("node.log"));
        let mut command = Leash::command("java", &dir, &log, &log);
        command.args(["-Xmx512m", "-XX:+UseSerialGC", "-cp"]).arg(jars("search")).arg("groovy.ui.GroovyMain");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/downstream/search.groovy"));
        let leash = Leash::tie(command.arg(dir.join("node")).args([&port.to_string(), "tests"]));
        let mut node = Self { leash, url: format!("http://127.0.0.1:{port}"), _files: files };
        let mut last = String::new();
        for _ in 0..PATIENCE.as_secs() {
            assert_eq!(
                node.leash.exit_code(),
                None,
                "the node ended:\n{}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            match node.send(Method::GET, "/_cluster/health?wait_for_status=yellow&timeout=5s", None).await {
                Ok(_) => {
                    node.install().await;
                    return node;
                }
                Err(why) => last = why,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("the node is not ready: {last}");
    }

    async fn install(&self) {
        let pipeline = shipped("deploy/elastic/pipeline.json");
        self.send(Method::PUT, "/_ingest/pipeline/o365feed", Some(pipeline)).await.unwrap();
        let mut template: Value = serde_json::from_str(&shipped("deploy/elastic/template.json")).unwrap();
        let fields = &mut template["template"]["mappings"]["properties"];
        stand_in(
            &mut fields["o365"]["properties"]["audit"],
            "flattened",
            json!({ "type": "object", "enabled": false }),
        );
        for field in ["dataset", "type"] {
            let constant = &mut fields["data_stream"]["properties"][field];
            stand_in(constant, "constant_keyword", json!({ "type": "keyword" }));
        }
        self.send(Method::PUT, "/_index_template/o365feed", Some(template.to_string())).await.unwrap();
    }

    /// The answer's body; of one that is no success as the error.
    async fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<Value, String> {
        let request = Client::new().request(method, format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(body.unwrap_or_default());
        let answer = request.send().await.map_err(|e| e.to_string())?;
        let (ok, text) = (answer.status().is_success(), answer.text().await.map_err(|e| e.to_string())?);
        let text = readable(&text);
        if ok { serde_json::from_str(&text).map_err(|e| format!("{e}: {text}")) } else { Err(text) }
    }
}

/// The samples have half of a surrogate pair and a number beyond every double, which our parser takes for no JSON.
fn readable(text: &str) -> String {
    text.replace("\\ud83d\"", "\\ufffd\"").replace("\\uD83D\"", "\\uFFFD\"").replace("\"E\":1e400", "\"E\":1e300")
}

/// Replaces a field of a type that only Elasticsearch has.
fn stand_in(field: &mut Value, shipped: &str, ours: Value) {
    assert_eq!(field["type"], shipped);
    *field = ours;
}
