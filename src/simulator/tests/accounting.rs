use std::collections::BTreeSet;

use super::*;
use crate::domain::{GapReason, RecordId};

/// Lists everything in windows of an hour, fetches it all, and gives the identity of every record with an `Id`.
async fn fetch_all(world: &World) -> (usize, BTreeSet<RecordId>) {
    let (mut records, mut ids) = (0, BTreeSet::new());
    for hour in -3..0 {
        for item in world.listed(hour * 3_600, (hour + 1) * 3_600).await {
            for record in read::<Vec<Value>>(world.follow(item["contentUri"].as_str().unwrap()).await).await {
                records += 1;
                ids.extend(record["Id"].as_str().map(RecordId::of_text));
            }
        }
    }
    (records, ids)
}

#[tokio::test]
async fn s50_what_is_listed_and_fetched_is_what_is_due_in_every_id_model() {
    for id_model in [IdModel::Stable, IdModel::Growing { arrivals: 4 }, IdModel::Partial { arrivals: 4 }] {
        let history = History { arrivals: 60, span: seconds(2 * 3_600), records: 10 };
        let duplicates = Duplicates { share: 0.2, reordered: true };
        let world = World::of_source(SourceScenario { history, duplicates, id_model, ..a_source() }).await;
        let (records, ids) = fetch_all(&world).await;
        let truth = world.sim.truth().now();
        let due: BTreeSet<RecordId> = truth[2].due.iter().map(|record| record.identity).collect();
        assert_eq!(ids, due, "{id_model:?}");
        assert_eq!(truth[2].due.len(), due.len(), "each once");
        assert!(due.len() < 550, "a fifth are repeats");
        if id_model != (IdModel::Growing { arrivals: 4 }) {
            assert_eq!(records, 600);
        }
    }
}

#[tokio::test]
async fn s50_what_cannot_be_had_is_excused_by_its_reason_unless_it_also_came_elsewhere() {
    let world = World::of_source(a_source()).await;
    let fault = |index, damage, times| ContentFault { content_type: ContentType::SharePoint, index, damage, times };
    let contents =
        vec![fault(0, Damage::Missing, None), fault(1, Damage::Html, None), fault(2, Damage::Missing, Some(3))];
    world.sim.control().set_faults(Faults { contents, ..Faults::default() });
    let truth = world.sim.truth().now().remove(2);
    let reasons: Vec<_> = truth.excused.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(truth.due.len(), 160);
    assert_eq!(reasons.iter().filter(|reason| **reason == GapReason::NotFound).count(), 20);
    assert_eq!(reasons.iter().filter(|reason| **reason == GapReason::Unreadable).count(), 20);
    world.sim.control().advance(SignedDuration::from_hours(8 * 24));
    let later = world.sim.truth().now().remove(2);
    assert_eq!((later.due.len(), later.excused.len()), (0, 200), "a week on, nothing can be demanded");
    assert_eq!(world.sim.truth().records(START.parse().unwrap())[2].due.len(), 160, "at the start it could");
}

#[tokio::test]
async fn s50_two_simulators_of_one_seed_owe_the_same_and_another_seed_something_else() {
    let digest = async |seed| {
        let world = World::with(Scenario { seed, ..Scenario::default() }).await;
        world.sim.truth().now()[2].digest()
    };
    assert_eq!(digest(1).await, digest(1).await);
    assert_ne!(digest(1).await, digest(2).await);
}

#[tokio::test]
async fn s50_a_million_records_are_enumerated_without_making_one() {
    let history = History { arrivals: 10_000, span: seconds(6 * 86_400), records: 100 };
    let world = World::of_source(SourceScenario { history, ..a_source() }).await;
    assert_eq!(world.sim.truth().now()[2].due.len(), 1_000_000);
}

#[tokio::test]
async fn s51_requests_tokens_starts_and_gets_are_counted() {
    let world = World::of_source(a_source()).await;
    let uri = world.first_uri().await;
    for _ in 0..2 {
        read::<Value>(world.follow(&uri).await).await;
    }
    world.post("subscriptions/stop?contentType=Audit.SharePoint").await;
    world.follow(world.sim.api_root().join("somewhere/else").unwrap().as_str()).await;
    let counts = world.sim.counts();
    assert_eq!((counts.tokens, counts.starts, counts.stops), (1, 0, 1));
    assert_eq!(counts.requests[&(Operation::Blob, 200)], 2);
    assert_eq!(counts.of(Operation::Content), 1);
    assert_eq!(counts.blob_gets[uri.rsplit('/').next().unwrap()], 2);
    assert_eq!(counts.missing_publisher, 2, "the two GETs of the contentUri as it stands");
    assert_eq!(counts.tokens_on_unknown_paths, 1);
    assert!(counts.concurrent_max >= 1);
}

#[tokio::test]
async fn s51_requests_are_open_until_their_body_is_out() {
    let faults = Faults::first(Operation::Blob, Failure::Stall, 1);
    let world = World::with(Scenario { faults, ..Scenario::default() }).await;
    let uri = world.first_uri().await;
    let held = world.follow(&uri).await;
    world.get("subscriptions/list").await;
    assert_eq!(world.sim.counts().concurrent_max, 2);
    drop(held);
}

#[tokio::test]
async fn the_control_port_tells_the_truth_and_takes_faults_and_time() {
    let world =
        World::of_source(SourceScenario { duplicates: Duplicates { share: 0.1, reordered: true }, ..a_source() }).await;
    let url = |path: &str| world.sim.control_root().join(path).unwrap();
    let get = async |path: &str| world.client.get(url(path)).send().await.unwrap();
    assert!(is_ok(&get("health").await));
    let truth: Value = read(get("truth").await).await;
    let source = &truth["sources"][2];
    let due = source["due"].as_u64().unwrap() as usize;
    assert_eq!(
        (source["contentType"].as_str(), source["digest"].as_str().unwrap().len()),
        (Some("Audit.SharePoint"), 64)
    );
    let lines = get("truth/records?type=Audit.SharePoint&offset=5").await.text().await.unwrap();
    assert_eq!(lines.lines().count(), due - 5);
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(line["sha256_half"].as_array().unwrap().len(), 2);
    assert_eq!(line["key"].as_str().unwrap().replace('-', ""), line["identity"].as_str().unwrap());

    let post = async |path: &str, body: &'static str| world.client.post(url(path)).body(body).send().await.unwrap();
    let faults = r#"{"rules":[{"on":"subscriptions","failure":{"status":503},"when":"always"}]}"#;
    assert!(is_ok(&post("faults", faults).await));
    assert_eq!(world.get("subscriptions/list").await.status(), 503);
    assert_eq!(post("faults", r#"{"rulez":[]}"#).await.status(), 400);
    let moved: Value = read(post("clock", r#"{"advance_seconds":60}"#).await).await;
    assert_eq!(moved["now"], "2026-08-30T12:01:00Z");
    let counts: Value = read(get("counts").await).await;
    assert_eq!(counts["tokens"], 1);
}
