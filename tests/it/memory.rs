//! Memory is bounded by settings, not by the size of a blob.

use o365feed::{
    domain::ContentType,
    simulator::{BigArrival, Operation, SourceScenario},
};

use crate::world::{World, history, scenario, stop};

const MIB: u64 = 1 << 20;

#[test]
fn a_large_blob_is_streamed_within_bounded_memory() {
    // 200 MB in one blob; and one of 70,000 records.
    let big = vec![
        BigArrival { index: 1, records: 2_000, record_bytes: 100_000 },
        BigArrival { index: 2, records: 70_000, record_bytes: 700 },
    ];
    let mut world = World::new(scenario(vec![(ContentType::SharePoint, SourceScenario { big, ..history(4, 20) })]));
    world.set("fetch.memory", "32MiB");
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    let peak = process.rss_peak_bytes();
    stop(&mut process);
    println!("peak {} MiB", peak / MIB);
    // What a process needs at all, what it may hold of blobs, and the producer's queue; then 70,000 ids and the allocator's due.
    let bound = 64 * MIB + 32 * MIB + 64 * MIB + 16 * MIB;
    assert!(peak <= bound, "{} MiB of {} MiB", peak / MIB, bound / MIB);
    let gets = world.simulator().counts().of(Operation::Blob);
    assert_eq!(gets, 4, "each blob was fetched once");
    world.verdict().is_exactly_once();
}
