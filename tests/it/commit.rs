//! The moment of a commit, seen and disturbed on the wire.

use std::{sync::atomic::Ordering, time::Duration};

use o365feed::{
    domain::ContentType,
    simulator::{Duplicates, SourceScenario},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};

use crate::{
    broker::client,
    process::Process,
    proxy::{FETCH, PRODUCE, Proxied},
    wait,
    world::{PATIENCE, World, history, last_lines, live, metric, published, scenario, stop},
};

/// Slow enough that there are commits after the first one with records.
fn world(proxied: &Proxied) -> World {
    let mut scenario = scenario(vec![(ContentType::SharePoint, history(80, 20))]);
    scenario.tenants[0].latency = Duration::from_millis(40);
    let mut world = World::on(&proxied.bootstrap, scenario);
    world.set("fetch.concurrency", 1);
    world
}

#[test]
fn offsets_are_sent_in_every_transaction() {
    let proxied = Proxied::new();
    let world = world(&proxied);
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let (offsets, commits) = (proxied.seen.offsets.load(Ordering::SeqCst), proxied.seen.commits.load(Ordering::SeqCst));
    assert!(0 < commits && commits <= offsets, "{commits} commits, {offsets} times offsets");
    world.verdict().is_exactly_once();
}

#[test]
fn killed_between_a_commit_and_its_answer_it_repeats_nothing_on_the_same_slot() {
    killed_between("a", "a");
}

#[test]
fn killed_between_a_commit_and_its_answer_it_repeats_nothing_on_another_slot() {
    killed_between("a", "b");
}

fn killed_between(slot: &str, next: &str) {
    let proxied = Proxied::new();
    let world = world(&proxied);
    let mut process = world.start(slot);
    swallow(&proxied, &mut process);
    process.kill9();
    let mut process = world.start(next);
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn a_commit_whose_answer_never_comes_is_neither_lost_nor_repeated() {
    let proxied = Proxied::new();
    let world = world(&proxied);
    let mut process = world.start("a");
    swallow(&proxied, &mut process);
    process.wait_until("it begins anew", PATIENCE, |process| process.stderr().contains("begins anew"));
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn a_producer_that_reaches_its_partitions_no_more_is_replaced() {
    a_client_that_hears_no_more(PRODUCE, "timed out");
}

#[test]
fn a_member_that_is_given_no_more_listings_is_replaced() {
    a_client_that_hears_no_more(FETCH, "has more than the broker gives us");
}

/// librdkafka loses a partition's leader for good when the brokers name none at the wrong moment. Seldom, so here a client
/// gets no answers any more until another one is made.
fn a_client_that_hears_no_more(request: i16, why: &str) {
    let proxied = Proxied::new();
    let source = SourceScenario { live: live(120.0, 20), ..history(20, 20) };
    let mut world = World::on(&proxied.bootstrap, scenario(vec![(ContentType::SharePoint, source)]));
    world.set("kafka.transaction_timeout", "5s");
    let mut process = world.start("a");
    process.wait_until("it publishes", PATIENCE, |process| 0.0 < published(process));
    proxied.seen.silence(request);
    process.wait_until("it begins anew", PATIENCE, |process| {
        let log = process.stderr();
        log.lines().any(|line| line.contains("begins anew") && line.contains(why))
    });
    proxied.seen.answer_again();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

/// Waits until the answer to a commit of records was swallowed.
fn swallow(proxied: &Proxied, process: &mut Process) {
    process.wait_until("it publishes", PATIENCE, |process| 0.0 < published(process));
    proxied.seen.swallow_next();
    process.wait_until("it commits", PATIENCE, |_| proxied.seen.has_swallowed());
}

#[test]
fn a_ledger_that_forgets_before_the_listings_do_is_refused() {
    let world = World::new(scenario(vec![(ContentType::SharePoint, history(10, 10))]));
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let ledger = world.topic("feed.ledger");
    let admin: AdminClient<DefaultClientContext> = client(world.bootstrap()).create().unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(&ledger))
        .set("retention.ms", "10000")
        .set("message.timestamp.type", "LogAppendTime");
    world.runtime().block_on(admin.alter_configs([&change], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
    let mut process = world.start("a");
    // The broker may take a moment to tell of the change; a start that came before it goes on.
    let refused = wait::comes_true(PATIENCE, || process.has_ended());
    assert!(refused, "{}", last_lines(&process.stderr()));
    assert_eq!(process.wait_exit(PATIENCE), 4, "{}", last_lines(&process.stderr()));
    let said = last_lines(&process.stderr());
    assert!(said.contains("retention.ms") && said.contains("kafka-configs"), "{said}");
    world.verdict().is_exactly_once();
}

#[test]
fn what_a_rebalance_rolls_back_is_published_all_the_same() {
    let repeats = Duplicates { share: 0.5, reordered: false };
    let source = SourceScenario { duplicates: repeats, live: live(120.0, 20), ..history(120, 20) };
    let mut scenario = scenario(vec![(ContentType::SharePoint, source)]);
    scenario.tenants[0].latency = Duration::from_millis(40);
    let mut world = World::new(scenario);
    // Long transactions, so that a rebalance finds one open, with blobs half in it.
    world.set("kafka.commit_interval", "10s");
    world.set("kafka.transaction_timeout", "45s");
    let mut first = world.start("a");
    first.wait_until("it publishes", PATIENCE, |process| 0.0 < published(process));
    let aborted = |process: &Process| metric(process, "o365feed_transactions_total", &["aborted"]);
    let mut second = world.start("b");
    let came = wait::comes_true(PATIENCE, || 0.0 < aborted(&first) + aborted(&second));
    assert!(came, "no rebalance met an open transaction:\n{}", last_lines(&first.stderr()));
    world.complete(&mut [&mut first, &mut second]);
    stop(&mut first);
    stop(&mut second);
    world.verdict().is_exactly_once();
}
