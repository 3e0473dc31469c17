//! What cannot go well is refused at the start, with a code and a word that say why.

use o365feed::domain::ContentType;

use crate::{
    process::Process,
    wait,
    world::{PATIENCE, World, history, last_lines, scenario, stop},
};

fn small() -> World {
    World::new(scenario(vec![(ContentType::SharePoint, history(10, 10))]))
}

#[test]
fn another_partition_count_is_refused() {
    let world = small();
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let mut process = world.start_with("a", &[("kafka.partitions", "4".to_owned())]);
    let said = ends_with(&mut process, 4);
    assert!(said.contains("feed.listings") && said.contains("partitions"), "{said}");
    world.verdict().is_exactly_once();
}

#[test]
fn another_group_on_the_prefix_is_refused() {
    let world = small();
    let mut process = world.start("a");
    world.complete(&mut [&mut process]);
    stop(&mut process);
    let mut process = world.start_with("a", &[("kafka.group", format!("{}-other", world.group()))]);
    let said = ends_with(&mut process, 4);
    assert!(said.contains(world.group()), "it names the group whose ledger it is: {said}");
    world.verdict().is_exactly_once();
}

#[test]
fn a_wrong_tenant_is_refused() {
    let world = small();
    let nobody = "00000000-5a0b-4d5e-9c7a-0c0a17e5ffff";
    let mut process = world.start_with("a", &[("tenants[0].id", nobody.to_owned())]);
    let said = ends_with(&mut process, 3);
    assert!(said.contains("tenant"), "{said}");
}

#[test]
fn two_processes_share_no_slot() {
    let world = small();
    let mut first = world.start("a");
    world.complete(&mut [&mut first]);
    let mut both = [first, world.start("a")];
    let mut ended = None;
    let came = wait::comes_true(PATIENCE, || {
        ended = both.iter_mut().position(|process| process.has_ended());
        ended.is_some()
    });
    assert!(came, "both run on:\n{}", last_lines(&both[1].stderr()));
    let ended = ended.unwrap();
    let said = ends_with(&mut both[ended], 5);
    assert!(said.contains("slot"), "{said}");
    let left = &mut both[1 - ended];
    world.complete(&mut [left]);
    stop(left);
    world.verdict().is_exactly_once();
}

/// The log of a process that ends with `code`.
fn ends_with(process: &mut Process, code: i32) -> String {
    let ended = process.wait_exit(PATIENCE);
    assert_eq!(ended, code, "{}", last_lines(&process.stderr()));
    last_lines(&process.stderr())
}
