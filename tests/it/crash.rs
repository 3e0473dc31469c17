//! Whatever happens to a process, nothing is lost and nothing comes twice.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use o365feed::{
    domain::ContentType,
    kafka::{Entry, EntryKind, partition_of},
    simulator::{IdModel, Scenario, SourceScenario},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{
    broker::client,
    process::Process,
    wait,
    world::{PATIENCE, SESSION, World, history, last_lines, live, metric, published, scenario, stop},
};

/// Enough that a process is in the middle of it when something happens, and more all the time.
fn busy() -> Scenario {
    let source = |id_model| SourceScenario { id_model, live: live(60.0, 20), ..history(40, 40) };
    let mut scenario = scenario(vec![
        (ContentType::SharePoint, source(IdModel::Growing { arrivals: 8 })),
        (ContentType::Exchange, source(IdModel::Stable)),
    ]);
    scenario.tenants[0].latency = Duration::from_millis(30);
    scenario
}

#[test]
fn kill_nine_at_ten_random_moments_loses_and_repeats_nothing() {
    let seed = env::var("O365FEED_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("O365FEED_TEST_SEED={seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut world = World::new(busy());
    world.set("fetch.concurrency", 2);
    let mut process = world.start("a");
    for kill in 0..10 {
        // Every other time only once it is at work: a start takes longer than some of the moments.
        if kill % 2 == 1 {
            process.wait_until("it publishes", PATIENCE, |process| published(process) > 0.0);
        }
        let moment = Duration::from_millis(chance.random_range(0..2_500));
        println!("kill {kill} after {moment:?}");
        thread::sleep(moment);
        process.kill9();
        process.restart();
    }
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn a_second_process_takes_over_from_a_killed_one() {
    let mut world = World::new(busy());
    world.set("fetch.concurrency", 2);
    let mut both = [world.start("a"), world.start("b")];
    let owner = owner(&mut both);
    both[owner].kill9();
    let other = &mut both[1 - owner];
    world.complete(&mut [other]);
    assert!(published(other) > 0.0, "it was the other one that went on");
    stop(other);
    world.verdict().is_exactly_once();
}

#[test]
fn a_process_stopped_past_its_session_cannot_publish_when_it_continues() {
    let mut world = World::new(busy());
    world.set("fetch.concurrency", 2);
    let mut both = [world.start("a"), world.start("b")];
    let owner = owner(&mut both);
    both[owner].sigstop();
    both[owner].wait_until("it has stopped", PATIENCE, Process::is_stopped);
    both[1 - owner].wait_until("the other publishes", PATIENCE + SESSION, |other| published(other) > 0.0);
    both[owner].sigcont();
    world.complete(&mut [&mut both[1 - owner]]);
    // It finds out that it was thrown out: either it goes on as a new member, or it ends with a code that says so.
    let mut stopped = both.into_iter().collect::<Vec<_>>();
    let (mut other, mut continued) = (stopped.remove(1 - owner), stopped.remove(0));
    let told = || continued.get("/readyz").map(|(status, _)| status).ok();
    if !wait::comes_true(Duration::from_secs(60), || told() == Some(200)) {
        let code = continued.wait_exit(Duration::from_secs(1));
        assert!([5, 6].contains(&code), "it ended with {code}:\n{}", last_lines(&continued.stderr()));
    } else {
        stop(&mut continued);
    }
    world.complete(&mut [&mut other]);
    stop(&mut other);
    world.verdict().is_exactly_once();
}

#[test]
fn sigterm_drains_within_ten_seconds_and_leaves_nothing_to_redo() {
    let mut scenario = scenario(vec![(ContentType::SharePoint, history(60, 50))]);
    scenario.tenants[0].latency = Duration::from_millis(100);
    let mut world = World::new(scenario);
    world.set("fetch.recheck", "off");
    world.set("fetch.concurrency", 2);
    let mut process = world.start("a");
    process.wait_until("it is in the middle", PATIENCE, |process| published(process) >= 300.0);
    process.sigterm();
    let asked = Instant::now();
    let code = process.wait_exit(Duration::from_secs(10));
    assert_eq!(code, 0, "{}", last_lines(&process.stderr()));
    println!("ended after {:?}", asked.elapsed());
    let before = world.simulator().counts().blob_gets;
    assert!(before.len() < 60, "there was something left to do");
    process.restart();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
    let gets = world.simulator().counts().blob_gets;
    let twice: Vec<_> = gets.iter().filter(|(_, gets)| **gets > 1).collect();
    assert!(twice.is_empty(), "fetched again after a good end: {twice:#?}");
}

#[test]
fn a_time_when_nobody_listed_and_that_the_api_lists_no_more_is_named_once() {
    let world = World::new(scenario(vec![(ContentType::SharePoint, history(5, 5))]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    // As if this had been eight days ago.
    let listed = Timestamp::now() - SignedDuration::from_hours(8 * 24);
    forge_listed(&world, ContentType::SharePoint, listed);
    process.restart();
    let named = |process: &Process| metric(process, "o365feed_gaps_total", &["reason=\"unlisted\""]) >= 1.0;
    process.wait_until("the span is named", PATIENCE, named);
    stop(&mut process);
    process.restart();
    process.wait_until("it has begun again", PATIENCE, |process| {
        process.get("/readyz").is_ok_and(|(code, _)| code == 200)
    });
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let verdict = world.verdict();
    verdict.is_exactly_once_but_for_gaps();
    let [gap] = &verdict.gaps[..] else { panic!("one span, once: {:#?}", verdict.gaps) };
    assert_eq!((&gap["reason"], &gap["content_type"]), (&"unlisted".into(), &"Audit.SharePoint".into()));
    let time = |key: &str| gap[key].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(time("from").as_second(), listed.as_second());
    let hours = time("to").duration_since(time("from")).as_hours();
    assert!((24..=25).contains(&hours), "{hours} h: what was then in reach is listed, not lost");
}

#[test]
fn lost_group_offsets_repeat_nothing() {
    let world = World::new(scenario(vec![
        (ContentType::SharePoint, history(30, 30)),
        (ContentType::Exchange, SourceScenario { without_id: 0.2, ..history(30, 30) }),
    ]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let before = world.simulator().counts().blob_gets;
    forget_group(&world);
    process.restart();
    process.wait_until("it has begun again", PATIENCE, |process| {
        metric(process, "o365feed_partitions_restored", &[]) >= 3.0
            && process.get("/readyz").is_ok_and(|(status, _)| status == 200)
    });
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
    assert_eq!(world.simulator().counts().blob_gets.len(), before.len(), "no other contents came");
}

#[test]
fn at_least_once_delivers_everything() {
    let mut world = World::new(busy());
    world.set("kafka.delivery", "at_least_once");
    world.set("fetch.concurrency", 2);
    let mut process = world.start("a");
    process.wait_until("it publishes", PATIENCE, |process| published(process) > 200.0);
    process.kill9();
    process.restart();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_at_least_once();
}

/// Which of the two has the tenant's partition, once it is at work.
fn owner(both: &mut [Process; 2]) -> usize {
    let mut owner = None;
    let found = wait::comes_true(PATIENCE, || {
        owner = both.iter().position(|process| published(process) > 0.0);
        owner.is_some()
    });
    assert!(
        found,
        "nobody publishes:\n{}",
        both.iter().map(|p| last_lines(&p.stderr())).collect::<Vec<_>>().join("\n----\n")
    );
    owner.unwrap()
}

/// Deletes the group and its offsets, as its retention does when nobody is in it.
fn forget_group(world: &World) {
    let admin: AdminClient<DefaultClientContext> = client(world.bootstrap()).create().unwrap();
    let mut last = None;
    // A static member stays in the group until its session has passed.
    let gone = wait::comes_true(PATIENCE, || {
        let asked = [world.group()];
        let answer = world.runtime().block_on(admin.delete_groups(&asked, &AdminOptions::new())).unwrap();
        let is_gone = answer[0].is_ok();
        last = Some(answer);
        is_gone
    });
    assert!(gone, "the group could not be deleted: {last:?}");
}

/// Writes to the ledger that the source was listed up to then, and no further.
fn forge_listed(world: &World, content_type: ContentType, to: Timestamp) {
    let kind = EntryKind::Listed { to };
    let entry = Entry { group: world.group(), content_type, content_id: "", kind, ids: Vec::new().into() };
    let producer: BaseProducer = client(world.bootstrap()).create().unwrap();
    let (topic, key) = (world.topic("feed.ledger"), world.tenant().to_string());
    let value = entry.encode();
    let record = BaseRecord::to(&topic).partition(partition_of(world.tenant(), 3)).key(&key).payload(&value);
    producer.send(record).unwrap();
    producer.flush(PATIENCE).unwrap();
}
