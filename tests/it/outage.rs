//! Kafka away: said at once, and mended by its coming.

use std::{thread, time::Duration};

use o365feed::{domain::ContentType, simulator::SourceScenario};

use crate::{
    broker::{Broker, Options},
    world::{PATIENCE, World, history, live, published, scenario, stop},
};

#[test]
fn without_kafka_it_says_so_and_goes_on_when_it_comes() {
    let mut broker = Broker::own(Options::default());
    broker.stop();
    let source = SourceScenario { live: live(60.0, 20), ..history(30, 30) };
    let world = World::on(broker.bootstrap(), scenario(vec![(ContentType::SharePoint, source)]));
    let mut process = world.start("a");
    process.wait_until("/readyz names Kafka", PATIENCE, |process| {
        process.get("/readyz").is_ok_and(|(status, page)| status == 503 && page.to_lowercase().contains("kafka"))
    });
    broker.start();
    world.complete(&mut [&mut process]);
    process
        .wait_until("it is ready", PATIENCE, |process| process.get("/readyz").is_ok_and(|(status, _)| status == 200));

    // Once more in the middle of its work, as a power cut does it.
    let before = published(&process);
    broker.kill();
    broker.start();
    process.wait_until("it goes on", 2 * PATIENCE, |process| published(process) > before);
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}

#[test]
fn a_broker_frozen_for_longer_than_a_transaction_may_take_costs_nothing() {
    let mut broker = Broker::own(Options::default());
    let source = SourceScenario { live: live(60.0, 20), ..history(60, 40) };
    let mut scenario = scenario(vec![(ContentType::SharePoint, source)]);
    scenario.tenants[0].latency = Duration::from_millis(50);
    let mut world = World::on(broker.bootstrap(), scenario);
    world.set("fetch.concurrency", 2);
    world.set("kafka.transaction_timeout", "5s");
    let mut process = world.start("a");
    process.wait_until("it is in the middle", PATIENCE, |process| published(process) >= 200.0);
    broker.pause();
    // The coordinator gives the open transaction up as soon as it wakes; the producer is not told.
    thread::sleep(Duration::from_secs(8));
    broker.resume();
    world.complete(&mut [&mut process]);
    stop(&mut process);
    world.verdict().is_exactly_once();
}
