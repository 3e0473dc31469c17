//! Named conditions and heartbeats, from which liveness and readiness follow.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What the process knows about its own health. Cheap to clone; all clones are one.
///
/// *Ready* gates a rollout: it needs [`Health::begun`] and every condition ok.
/// *Live* asks whether a restart would help: only [`Health::dead`] or an overdue heartbeat deny it, never a neighbour's trouble.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    begun: bool,
    dead: Option<String>,
    /// By name; `Some` is why it is not ok.
    conditions: BTreeMap<String, Option<String>>,
    heartbeats: BTreeMap<String, Heartbeat>,
}

#[derive(Debug)]
struct Heartbeat {
    last: Instant,
    max_age: Duration,
}

impl Health {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The process has registered what it must watch: from now on it may be ready.
    pub fn begun(&self) {
        self.state().begun = true;
    }

    /// The named condition holds. Registers the name at first use.
    pub fn ok(&self, name: &str) {
        self.state().conditions.insert(name.to_owned(), None);
    }

    /// The named condition does not hold. `reason` is for a person: what is wrong and what to look at; never a secret.
    pub fn not_ok(&self, name: &str, reason: impl Into<String>) {
        self.state().conditions.insert(name.to_owned(), Some(reason.into()));
    }

    /// Forgets the condition or heartbeat of that name: what is not there any more cannot be ill.
    pub fn forget(&self, name: &str) {
        let mut state = self.state();
        state.conditions.remove(name);
        state.heartbeats.remove(name);
    }

    /// Nothing but a restart will help. Final: liveness fails from here on, with the first reason given.
    pub fn dead(&self, reason: impl Into<String>) {
        self.state().dead.get_or_insert_with(|| reason.into());
    }

    /// Registers a heartbeat that starts now: the process counts as dead when [`Health::beat`] stays away for longer than `max_age`.
    pub fn expect_beats(&self, name: &str, max_age: Duration) {
        self.state().heartbeats.insert(name.to_owned(), Heartbeat { last: Instant::now(), max_age });
    }

    /// A sign of life. A name that [`Health::expect_beats`] does not know is passed over: it may just have been forgotten.
    pub fn beat(&self, name: &str) {
        if let Some(heartbeat) = self.state().heartbeats.get_mut(name) {
            heartbeat.last = Instant::now();
        }
    }

    /// # Errors
    /// What stands in the way, one line a condition (`name: reason`).
    pub fn ready(&self) -> Result<(), String> {
        self.state().ready()
    }

    /// # Errors
    /// Why only a restart helps, one line a reason.
    pub fn alive(&self) -> Result<(), String> {
        self.state().alive_at(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a panic elsewhere cannot have left it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ready(&self) -> Result<(), String> {
        let starting = (!self.begun).then(|| "start: not finished yet".to_owned());
        let failing = self.conditions.iter().filter_map(|(name, fault)| Some(format!("{name}: {}", fault.as_ref()?)));
        all_clear(starting.into_iter().chain(failing).collect())
    }

    fn alive_at(&self, now: Instant) -> Result<(), String> {
        let dead = self.dead.iter().map(|reason| format!("dead: {reason}"));
        let overdue = self.heartbeats.iter().filter_map(|(name, heartbeat)| {
            let silent = now.saturating_duration_since(heartbeat.last);
            (heartbeat.max_age < silent).then(|| {
                format!("{name}: no sign of life for {} s, {} s allowed", silent.as_secs(), heartbeat.max_age.as_secs())
            })
        });
        all_clear(dead.chain(overdue).collect())
    }
}

fn all_clear(faults: Vec<String>) -> Result<(), String> {
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_a_finished_start_and_every_condition() {
        let health = Health::new();
        health.ok("kafka");
        assert_eq!(health.ready(), Err("start: not finished yet".to_owned()));
        health.begun();
        assert_eq!(health.ready(), Ok(()));
        health.not_ok("token contoso", "AADSTS7000215");
        health.not_ok("kafka", "cannot reach localhost:9092: is it running?");
        assert_eq!(
            health.ready(),
            Err("kafka: cannot reach localhost:9092: is it running?\ntoken contoso: AADSTS7000215".to_owned())
        );
        health.ok("kafka");
        health.forget("token contoso");
        assert_eq!(health.ready(), Ok(()));
        assert_eq!(health.alive(), Ok(()));
    }

    #[test]
    fn an_overdue_heartbeat_or_death_ends_liveness_and_nothing_else_does() {
        let health = Health::new();
        health.not_ok("kafka", "gone");
        health.expect_beats("commit", Duration::from_secs(30));
        let started = health.state().heartbeats["commit"].last;
        let (due, overdue) = (started + Duration::from_secs(30), started + Duration::from_secs(31));
        assert_eq!(health.state().alive_at(due), Ok(()));
        assert_eq!(health.state().alive_at(overdue), Err("commit: no sign of life for 31 s, 30 s allowed".to_owned()));
        health.forget("commit");
        health.beat("commit");
        assert_eq!(health.state().alive_at(overdue), Ok(()));
        health.dead("fenced");
        health.dead("a later word does not count");
        assert_eq!(health.alive(), Err("dead: fenced".to_owned()));
    }

    #[test]
    fn a_beat_starts_the_age_anew() {
        let health = Health::new();
        health.expect_beats("commit", Duration::from_secs(30));
        let before = Instant::now() - Duration::from_secs(60);
        health.state().heartbeats.get_mut("commit").unwrap().last = before;
        assert!(health.alive().is_err());
        health.clone().beat("commit");
        assert_eq!(health.alive(), Ok(()));
    }
}
