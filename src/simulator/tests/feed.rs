use std::collections::BTreeSet;

use super::*;

fn unsubscribed() -> SourceScenario {
    SourceScenario { subscribed: false, ..a_source() }
}

async fn start(world: &World) -> Response {
    world.post("subscriptions/start?contentType=Audit.SharePoint").await
}

#[tokio::test]
async fn s13_names_are_read_in_any_letter_case_and_the_type_comes_back_as_sent() {
    let world = World::of_source(unsubscribed()).await;
    assert_eq!(
        read::<Value>(world.post("subscriptions/start?CONTENTTYPE=Audit.Sharepoint").await).await["contentType"],
        "Audit.Sharepoint"
    );
    assert_eq!(read::<Value>(world.get("subscriptions/list").await).await[0]["contentType"], "Audit.Sharepoint");
    let query = format!("contenttype=audit.sharepoint&StartTime={}&ENDTIME={}", world.at(-7_200), world.at(0));
    let page: Value = read(world.get(&format!("subscriptions/content?{query}")).await).await;
    assert_eq!(page[0]["contentType"], "audit.sharepoint");
}

#[tokio::test]
async fn s14_a_publisher_that_is_no_guid_is_refused_and_an_absent_one_is_counted() {
    let world = World::of_source(a_source()).await;
    let url = world.call(Method::GET, "subscriptions/list").build().unwrap().url().to_string();
    let odd = world.follow(&url.replace(PUBLISHER, "contoso")).await;
    assert_eq!(refusal(odd).await.1, "AF20002");
    assert_eq!(world.sim.counts().missing_publisher, 0);
    assert!(is_ok(&world.follow(url.split('?').next().unwrap()).await));
    let counts = world.sim.counts();
    assert_eq!(counts.missing_publisher, 1);
    assert!(counts.sliding_minute_max.keys().any(|(publisher, _)| publisher.is_nil()));
}

#[tokio::test]
async fn s15_answers_carry_the_services_headers_and_the_virtual_date() {
    let world = World::with(Scenario { date_skew: SignedDuration::from_secs(90), ..Scenario::default() }).await;
    let answer = world.get("subscriptions/list").await;
    assert_eq!(header(&answer, "date"), "Sun, 30 Aug 2026 12:01:30 GMT");
    assert_eq!(header(&answer, "content-type"), "application/json; charset=utf-8");
    assert_eq!(header(&answer, "cache-control"), "no-cache");
    assert_eq!(header(&answer, "expires"), "-1");
    assert_eq!(header(&answer, "mise-correlation-id").len(), 36);
}

#[tokio::test]
async fn s16_gzip_is_sent_to_who_asks_for_it() {
    let world = World::with(Scenario { gzip: true, ..Scenario::default() }).await;
    let uri = world.first_uri().await;
    let records: Vec<Value> = read(world.follow(&uri).await).await;
    assert_eq!(records.len(), 20);
    let plain = Client::builder().no_proxy().no_gzip().build().unwrap();
    let ask = plain.get(&uri).bearer_auth(&world.token).header("accept-encoding", "gzip");
    let packed = ask.send().await.unwrap();
    assert_eq!(header(&packed, "content-encoding"), "gzip");
    assert_eq!(&packed.bytes().await.unwrap()[..2], [0x1F, 0x8B]);
}

#[tokio::test]
async fn s16_a_byte_order_mark_a_closed_connection_and_http_2_without_tls() {
    let faults = Faults::first(Operation::Subscriptions, Failure::ByteOrderMark, 1);
    let world = World::with(Scenario { faults, ..Scenario::default() }).await;
    let body = world.get("subscriptions/list").await.bytes().await.unwrap();
    assert!(body.starts_with(b"\xEF\xBB\xBF["));
    world.sim.control().set_faults(Faults::first(Operation::Subscriptions, Failure::Close, 1));
    assert_eq!(header(&world.get("subscriptions/list").await, "connection"), "close");
    let client = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = world.call(Method::GET, "subscriptions/list").build().unwrap().url().clone();
    let answer = client.get(url).bearer_auth(&world.token).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 200));
}

#[tokio::test]
async fn s17_beyond_the_quota_of_a_minute_every_shape_of_throttle() {
    let shapes = [
        (ThrottleShape::Forbidden, 403, ""),
        (ThrottleShape::TooMany, 429, ""),
        (ThrottleShape::TooManySeconds(7), 429, "7"),
        (ThrottleShape::TooManyDate(60), 429, "Sun, 30 Aug 2026 12:01:00 GMT"),
    ];
    let world = World::of(TenantScenario { quota_per_minute: 2, ..TenantScenario::default() }).await;
    for _ in 0..2 {
        assert!(is_ok(&world.get("subscriptions/list").await));
    }
    for (throttle, status, after) in shapes {
        world.sim.control().set_faults(Faults { throttle, ..Faults::default() });
        let answer = world.get("subscriptions/list").await;
        assert_eq!(header(&answer, "retry-after"), after);
        let (was, code, text) = refusal(answer).await;
        assert_eq!((was, code.as_str()), (status, "AF429"));
        assert_eq!(text, format!("Too many requests. Method=ListSubscriptions, PublisherId={PUBLISHER}"));
    }
    assert_eq!(world.sim.counts().sliding_minute_max.values().max(), Some(&6));
}

#[tokio::test]
async fn s17_a_throttle_comes_at_random_too() {
    let faults = Faults::at_rate(Failure::Throttled(ThrottleShape::TooMany), 0.5);
    let world = World::with(Scenario { faults, ..Scenario::default() }).await;
    let mut throttled = 0;
    for _ in 0..20 {
        throttled += u32::from(world.get("subscriptions/list").await.status() == 429);
    }
    assert!((3..=17).contains(&throttled), "{throttled}");
}

#[tokio::test]
async fn s18_the_back_end_is_down_for_some_tries_and_then_is_not() {
    for status in [500, 502, 503, 504, 408] {
        let faults = Faults::first(Operation::Subscriptions, Failure::Status(status), 2);
        let world = World::with(Scenario { faults, ..Scenario::default() }).await;
        let texts = [world.get("subscriptions/list").await, world.get("subscriptions/list").await];
        assert!(texts.iter().all(|answer| answer.status() == status));
        if status == 500 {
            let [once, later] = texts;
            let (once, later) = (refusal(once).await, refusal(later).await);
            assert_eq!((once.1.as_str(), later.1.as_str()), ("AF50000", "AF50000"));
            assert!(once.2 != later.2 && later.2.contains("in an hour"));
        }
        assert!(is_ok(&world.get("subscriptions/list").await));
    }
}

#[tokio::test]
async fn s18_silence_stall_and_reset_never_give_a_whole_answer() {
    let world = World::of_source(a_source()).await;
    let uri = world.first_uri().await;
    for failure in [Failure::Silence, Failure::Stall, Failure::Reset] {
        world.sim.control().set_faults(Faults::first(Operation::Blob, failure, 1));
        // The time-out is what a stall ends in; it decides nothing else.
        let ask = world.client.get(&uri).bearer_auth(&world.token).timeout(Duration::from_millis(300));
        let whole = match ask.send().await {
            Ok(answer) => answer.bytes().await.is_ok(),
            Err(_) => false,
        };
        assert!(!whole, "{failure:?}");
        assert!(is_ok(&world.follow(&uri).await));
    }
    world.sim.shutdown().await.unwrap();
}

#[tokio::test]
async fn s20_at_first_there_is_no_subscription() {
    let world = World::of_source(unsubscribed()).await;
    assert_eq!(read::<Value>(world.get("subscriptions/list").await).await, serde_json::json!([]));
    let (status, code, _) = refusal(world.list(-3_600, 0).await).await;
    assert_eq!((status, code.as_str()), (400, "AF20022"));
}

#[tokio::test]
async fn s21_a_repeated_start_is_refused_fine_or_too_frequent() {
    let world = World::of_source(unsubscribed()).await;
    let first: Value = read(start(&world).await).await;
    assert_eq!((first["status"].as_str(), &first["webhook"]), (Some("enabled"), &Value::Null));
    let (status, code, text) = refusal(start(&world).await).await;
    assert_eq!((status, code.as_str()), (400, "AF20024"));
    assert_eq!(text, "The subscription is already enabled. No property change.");

    let fine = World::of(TenantScenario { start: RepeatedStart::Fine, ..TenantScenario::default() }).await;
    assert!(is_ok(&start(&fine).await) && is_ok(&start(&fine).await));

    let sources = vec![(ContentType::SharePoint, unsubscribed())];
    let slow = TenantScenario { start: RepeatedStart::Cooldown, sources, ..TenantScenario::default() };
    let slow = World::of(slow).await;
    assert!(is_ok(&start(&slow).await));
    slow.sim.control().advance(SignedDuration::from_secs(4));
    let (status, _, text) = refusal(start(&slow).await).await;
    assert_eq!(status, 429);
    assert_eq!(text, "Too many frequent subscription start requests. Please retry again after 14m 56s");
    slow.sim.control().advance(SignedDuration::from_mins(15));
    assert_eq!(refusal(start(&slow).await).await.1, "AF20024");
    assert_eq!(slow.sim.counts().starts, 3);
}

#[tokio::test]
async fn s22_a_stopped_subscription_lists_nothing_and_what_came_meanwhile_stays_away() {
    let live = Live { arrivals_per_minute: 60.0, records: 1 };
    let sources = vec![(ContentType::SharePoint, SourceScenario { live, ..a_source() })];
    let world = World::of(TenantScenario { stop_status: 204, sources, ..TenantScenario::default() }).await;
    let stop = || world.post("subscriptions/stop?contentType=Audit.SharePoint");
    assert_eq!(stop().await.status(), 204);
    assert_eq!(refusal(stop().await).await.1, "AF20022");
    assert_eq!(refusal(world.list(-3_600, 0).await).await.1, "AF20022");
    world.sim.control().advance(SignedDuration::from_secs(60));
    start(&world).await;
    world.sim.control().advance(SignedDuration::from_secs(60));
    assert_eq!(world.listed(0, 60).await.len(), 0);
    assert!(world.listed(60, 120).await.len() > 50);
}

#[tokio::test]
async fn s26_the_first_contents_take_their_time_and_reach_back() {
    let backfill = seconds(1_800);
    let world =
        World::of_source(SourceScenario { first_content_after: seconds(600), backfill, ..unsubscribed() }).await;
    start(&world).await;
    assert_eq!(world.listed(-3_700, 0).await.len(), 0);
    assert_eq!(world.sim.truth().now()[2].due.len(), 0);
    world.sim.control().advance(SignedDuration::from_secs(600));
    let listed = world.listed(-3_700, 0).await.len();
    assert!((4..=5).contains(&listed), "half of the history: {listed}");
    assert_eq!(world.sim.truth().now()[2].due.len(), listed * 20);
}

#[tokio::test]
async fn s30_s38_an_item_has_the_wires_members_and_its_created_is_the_ids_last() {
    let world = World::of_source(SourceScenario { expiration_days: 14, ..a_source() }).await;
    let item = world.listed(-7_200, 0).await.remove(0);
    let text = |name: &str| item[name].as_str().unwrap();
    let [first, last, lower, mixed, shard] = text("contentId").split('$').collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((lower, mixed, shard), ("audit_sharepoint", "Audit_SharePoint", "na0036"));
    let created = text("contentCreated");
    assert_eq!(created.replace(['-', ':', 'T', '.', 'Z'], ""), last[..17]);
    let days = text("contentExpiration").parse::<Timestamp>().unwrap().as_second() / 86_400
        - created.parse::<Timestamp>().unwrap().as_second() / 86_400;
    assert!((13..=14).contains(&days) && first < last);
    assert_eq!(
        text("contentUri"),
        format!(
            "{}api/v1.0/{}/activity/feed/audit/{}",
            world.sim.api_root(),
            TenantScenario::default().id,
            text("contentId")
        )
    );
}

#[tokio::test]
async fn s31_a_plus_that_is_not_encoded_yields_nothing() {
    let world = World::of_source(a_source()).await;
    let ask = async |plus: &str| {
        let query = format!("startTime=2026-08-30T10:00:00{plus}00:00&endTime=2026-08-30T12:00:00{plus}00:00");
        read::<Vec<Value>>(world.get(&format!("subscriptions/content?contentType=Audit.SharePoint&{query}")).await)
            .await
            .len()
    };
    assert_eq!((ask("+").await, ask("%2B").await), (0, 10));
}

#[tokio::test]
async fn s32_windows_out_of_bounds_are_refused_with_their_codes() {
    let world = World::of_source(a_source()).await;
    let day = 86_400;
    for (from, to, code) in [(-day - 1, 0, "AF20055"), (0, -60, "AF20055"), (-7 * day - 1, -6 * day - 3_600, "AF20030")]
    {
        let (status, was, text) = refusal(world.list(from, to).await).await;
        assert_eq!((status, was.as_str()), (400, code));
        assert!(text.contains("StartTime:") && text.contains("EndTime:"));
    }
    let half = world.get("subscriptions/content?contentType=Audit.SharePoint&startTime=2026-08-30").await;
    let (status, code, text) = refusal(half).await;
    assert_eq!((status, text.as_str()), (400, "s"));
    assert_eq!(code, "String reference not set to an instance of a String.\r\nParameter name");
    assert_eq!(refusal(world.get("subscriptions/content?contentType=Audit.Odd").await).await.1, "AF20020");
}

#[tokio::test]
async fn s33_a_page_names_the_next_in_a_header_as_on_the_wire() {
    for name in ["NextPageUri", "nextpageurl"] {
        let world =
            World::of_source(SourceScenario { page_size: 4, next_page_header: name.to_owned(), ..a_source() }).await;
        let (mut ids, mut url, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let answer = if url.is_empty() { world.list(-7_200, 0).await } else { world.follow(&url).await };
            url = header(&answer, name).to_owned();
            ids.extend(read::<Vec<Value>>(answer).await.into_iter().map(|item| item["contentId"].to_string()));
            pages += 1;
            if url.is_empty() {
                break;
            }
            let query = url.split_once("/activity/feed/subscriptions/content?").unwrap().1;
            let start = "contenttype=Audit.SharePoint&endtime=2026-08-30T12:00:00.0000000Z&starttime=2026-08-30T10:00:00.0000000Z&nextpage=";
            assert!(query.starts_with(start) && query.ends_with("$na0036"), "{query}");
        }
        ids.dedup();
        assert_eq!((ids.len(), pages), (10, 3));
        let broken = world.get("subscriptions/content?contenttype=Audit.SharePoint&nextpage=1$2$3").await;
        assert_eq!(refusal(broken).await.1, "AF20031");
    }
}

#[tokio::test]
async fn s35_items_of_a_page_come_in_no_order_and_none_is_lost() {
    let world = World::of_source(SourceScenario { shuffled: true, ..a_source() }).await;
    let items = world.listed(-7_200, 0).await;
    let created: Vec<&str> = items.iter().map(|item| item["contentCreated"].as_str().unwrap()).collect();
    assert!(!created.is_sorted(), "{created:?}");
    let in_order = World::of_source(a_source()).await.listed(-7_200, 0).await;
    let ids = |items: &[Value]| items.iter().map(|item| item["contentId"].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&items), ids(&in_order));
}

#[tokio::test]
async fn s36_a_range_grows_between_two_listings_and_the_old_id_stays_good() {
    let live = Live { arrivals_per_minute: 6.0, records: 3 };
    let id_model = IdModel::Growing { arrivals: 12 };
    let world = World::of_source(SourceScenario { live, id_model, ..a_source() }).await;
    world.sim.control().advance(SignedDuration::from_secs(35));
    let early = world.listed(0, 60).await.remove(0);
    world.sim.control().advance(SignedDuration::from_secs(20));
    let late = world.listed(0, 60).await.remove(0);
    assert_ne!(early["contentId"], late["contentId"]);
    assert_eq!(early["contentExpiration"], late["contentExpiration"]);
    let read_blob =
        async |item: &Value| read::<Vec<Value>>(world.follow(item["contentUri"].as_str().unwrap()).await).await;
    let (early, late) = (read_blob(&early).await, read_blob(&late).await);
    assert!(early.len() < late.len() && late.starts_with(&early));
}

#[tokio::test]
async fn s24_an_administrator_disables_a_subscription_until_it_is_started_or_for_good() {
    for disabled in [Disabled::UntilStarted, Disabled::ForGood] {
        let world = World::of_source(SourceScenario { disabled: Some(disabled), ..a_source() }).await;
        let listed: Value = read(world.get("subscriptions/list").await).await;
        assert_eq!(listed[0]["status"], "disabled");
        assert_eq!(refusal(world.list(-3_600, 0).await).await.1, "AF20023");
        let started = start(&world).await;
        if disabled == Disabled::ForGood {
            assert_eq!(refusal(started).await.1, "AF20023");
        } else {
            assert!(is_ok(&started));
            assert_eq!(read::<Value>(world.get("subscriptions/list").await).await[0]["status"], "enabled");
            assert!(is_ok(&world.list(-3_600, 0).await));
        }
    }
}

#[tokio::test]
async fn s25_without_an_audit_log_every_call_gets_free_text_until_it_is_on() {
    let world = World::of_source(a_source()).await;
    let rule = Rule { on: None, failure: Failure::AuditOff, when: When::Always };
    world.sim.control().set_faults(Faults { rules: vec![rule], ..Faults::default() });
    for answer in [world.get("subscriptions/list").await, world.list(-3_600, 0).await, start(&world).await] {
        let (status, code, text) = refusal(answer).await;
        assert!(status == 400 && code.starts_with("StartSubscription [CorrId="), "{code}");
        assert!(text.contains("DataServiceException: Tenant ") && text.ends_with(" does not exist."), "{text}");
    }
    world.sim.control().set_faults(Faults::default());
    assert!(is_ok(&world.list(-3_600, 0).await));
}

#[tokio::test]
async fn s34_a_link_to_the_next_page_may_lead_to_a_foreign_host() {
    let world = World::of_source(a_source()).await;
    let rule = Rule { on: Some(Operation::Content), failure: Failure::StrayLink, when: When::Always };
    world.sim.control().set_faults(Faults { rules: vec![rule], ..Faults::default() });
    let answer = world.list(-3_600, 0).await;
    assert!(is_ok(&answer) && header(&answer, "NextPageUri").starts_with("https://elsewhere.example/"));
}
