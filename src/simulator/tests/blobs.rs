use super::*;

fn damaged(damage: Damage, times: Option<u32>) -> Faults {
    let contents = vec![ContentFault { content_type: ContentType::SharePoint, index: 0, damage, times }];
    Faults { contents, ..Faults::default() }
}

#[tokio::test]
async fn s40_s50_a_blob_holds_the_records_the_truth_names_byte_for_byte() {
    let source = SourceScenario { without_id: 0.2, samples: true, layout: Layout::Spaced, ..a_source() };
    let world = World::of_source(source).await;
    let body = world.follow(&world.first_uri().await).await.bytes().await.unwrap();
    let records: Vec<&serde_json::value::RawValue> = serde_json::from_slice(&body).unwrap();
    let truth = world.sim.truth().now();
    let due = &truth[2].due;
    assert!(records.len() > 50);
    for record in records {
        let bytes = record.get().as_bytes();
        let known = due.iter().filter(|known| known.accepts(bytes)).collect::<Vec<_>>();
        assert!(!known.is_empty());
        assert!(known.iter().all(|known| known.hashes().contains(&half_hash(bytes))));
    }
}

#[tokio::test]
async fn s38_retrieval_ends_with_the_expiration() {
    let world = World::of_source(SourceScenario { expiration_days: 14, ..a_source() }).await;
    let uri = world.first_uri().await;
    world.sim.control().advance(SignedDuration::from_hours(13 * 24));
    let token = world.token_for(&TenantScenario::default(), "https://manage.office.com").await;
    let world = World { token, ..world };
    assert!(is_ok(&world.follow(&uri).await), "listed once, it outlives the listing window");
    world.sim.control().advance(SignedDuration::from_hours(24));
    let token = world.token_for(&TenantScenario::default(), "https://manage.office.com").await;
    let world = World { token, ..world };
    let (status, code, _) = refusal(world.follow(&uri).await).await;
    assert_eq!((status, code.as_str()), (400, "AF20051"));
}

#[tokio::test]
async fn s42_refusals_last_as_long_as_they_are_told_to() {
    let world = World::of_source(a_source()).await;
    let uri = world.first_uri().await;
    let cases =
        [(Damage::Missing, 400, "AF20050"), (Damage::Expired, 400, "AF20051"), (Damage::InvalidId, 400, "AF20052")];
    for (damage, status, code) in cases {
        world.sim.control().set_faults(damaged(damage, Some(2)));
        for _ in 0..2 {
            let (was, met, _) = refusal(world.follow(&uri).await).await;
            assert_eq!((was, met.as_str()), (status, code));
        }
        assert!(is_ok(&world.follow(&uri).await));
    }
    for (damage, status) in [(Damage::NotFound, 404), (Damage::Denied, 401), (Damage::Status(503), 503)] {
        world.sim.control().set_faults(damaged(damage, Some(1)));
        assert_eq!(world.follow(&uri).await.status(), status);
        assert!(is_ok(&world.follow(&uri).await));
    }
}

#[tokio::test]
async fn s42_bodies_that_are_no_array_come_with_status_200() {
    let world = World::of_source(a_source()).await;
    let uri = world.first_uri().await;
    for damage in [Damage::Truncated, Damage::CutMidRecord, Damage::NotJson, Damage::Html] {
        world.sim.control().set_faults(damaged(damage, None));
        let answer = world.follow(&uri).await;
        assert!(is_ok(&answer));
        assert_eq!(header(&answer, "content-type") == "text/html", damage == Damage::Html);
        let body = answer.bytes().await.unwrap();
        assert!(serde_json::from_slice::<Vec<Value>>(&body).is_err(), "{damage:?}");
    }
    world.sim.control().set_faults(damaged(Damage::Empty, Some(1)));
    assert_eq!(read::<Vec<Value>>(world.follow(&uri).await).await.len(), 0);
}

#[tokio::test]
async fn s42_a_damaged_or_foreign_id_is_invalid_and_a_thought_up_one_does_not_exist() {
    let world = World::of_source(a_source()).await;
    let uri = world.first_uri().await;
    let odd = refusal(world.follow(&uri.replace("audit_sharepoint", "audit_share")).await).await;
    assert_eq!(odd.1, "AF20052");
    assert!(odd.2.starts_with("Blob key ") && odd.2.ends_with(" in the url is invalid"));
    let at = uri.find('$').unwrap();
    let thought_up = format!("{}000{}", &uri[..at - 3], &uri[at..]);
    assert_eq!(refusal(world.follow(&thought_up).await).await.1, "AF20050");
}

#[tokio::test]
async fn s42_a_record_above_eight_mebibytes_and_a_large_blob_arrive_whole() {
    let big = vec![
        BigArrival { index: 0, records: 1, record_bytes: 9 << 20 },
        BigArrival { index: 1, records: 8_000, record_bytes: 2_500 },
    ];
    let world = World::of_source(SourceScenario { big, ..a_source() }).await;
    let listed = world.listed(-7_200, 0).await;
    let body = async |at: usize| world.follow(listed[at]["contentUri"].as_str().unwrap()).await.bytes().await.unwrap();
    assert_eq!(body(0).await.len(), (9 << 20) + 2);
    assert_eq!(body(1).await.len(), 8_000 * 2_501 + 1);
}

#[tokio::test]
async fn s43_the_second_get_has_more_records() {
    let world = World::of_source(a_source()).await;
    let uri = world.first_uri().await;
    world.sim.control().set_faults(damaged(Damage::Shorter, Some(1)));
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.push(read::<Vec<Value>>(world.follow(&uri).await).await.len());
    }
    assert_eq!(counts, [10, 20, 20]);
    assert_eq!(world.sim.truth().now()[2].due.len(), 200, "all of it is owed");
}
