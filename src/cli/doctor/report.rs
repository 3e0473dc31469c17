//! Probes, verdicts and the report that they make, for people and for programs.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::cli::{Exit, output::harmless};

/// What a probe came to. The order is that of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Not looked at, and the evidence says why.
    Skipped,
    Ok,
    /// Worth knowing; nothing to do.
    Note,
    /// Costs data or time, now or later.
    Warning,
    /// Does not work.
    Failure,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "WARNING",
            Self::Failure => "FAILURE",
        }
    }
}

/// The numbers of docs/api/contract.md 10, and what each looks at.
pub(super) const NAMES: [&str; 25] = [
    "settings",
    "network",
    "clock",
    "token",
    "token's claims",
    "role ActivityFeed.Read",
    "role ActivityFeed.ReadDlp",
    "audit log",
    "licence",
    "subscriptions",
    "start: already on",
    "start: too often",
    "foreign webhook",
    "webhook state",
    "contents",
    "pages",
    "window",
    "publisher identifier",
    "request budget",
    "blobs",
    "mailbox events",
    "delay",
    "ledger",
    "deadline",
    "kafka",
];

/// One probe and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) number: u8,
    /// The tenant's name, for those that look at a tenant.
    pub(super) tenant: Option<String>,
    pub(super) verdict: Verdict,
    /// What was seen, with figures.
    pub(super) evidence: Vec<String>,
    /// What to type or click.
    pub(super) advice: Vec<String>,
}

impl Probe {
    /// All is well as long as nothing is found.
    pub(super) fn of(number: u8) -> Self {
        Self { number, tenant: None, verdict: Verdict::Ok, evidence: Vec::new(), advice: Vec::new() }
    }

    pub(super) fn skipped(number: u8, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::of(number) }.see(why)
    }

    pub(super) fn see(mut self, what: impl Into<String>) -> Self {
        self.evidence.push(what.into());
        self
    }

    /// Something was found; of several findings the worst is the verdict.
    pub(super) fn find(mut self, verdict: Verdict, what: impl Into<String>, advice: impl Into<String>) -> Self {
        self.verdict = self.verdict.max(verdict);
        let advice = advice.into();
        if !advice.is_empty() && !self.advice.contains(&advice) {
            self.advice.push(advice);
        }
        self.see(what)
    }

    pub(super) fn name(&self) -> &'static str {
        NAMES.get(usize::from(self.number).wrapping_sub(1)).copied().unwrap_or_default()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.verdict == Verdict::Failure
    }

    fn line(&self) -> String {
        let why = if self.verdict == Verdict::Skipped { self.evidence.join("; ") } else { String::new() };
        let line = format!("  {:<8} {:>2}  {}", self.verdict.word(), self.number, self.name());
        if why.is_empty() { line } else { format!("{line} ({})", harmless(&why)) }
    }

    fn lines(&self, is_verbose: bool) -> String {
        let mut text = self.line() + "\n";
        let is_told = self.verdict > Verdict::Ok || (is_verbose && self.verdict == Verdict::Ok);
        for what in self.evidence.iter().filter(|_| is_told) {
            text += &indented("               ", what);
        }
        for what in self.advice.iter().filter(|_| is_told) {
            text += &indented("            -> ", what);
        }
        text
    }
}

/// Every line of `text` below the first mark, none of them obeyed by the terminal.
fn indented(mark: &str, text: &str) -> String {
    let blank = " ".repeat(mark.len());
    let lines = text.lines().enumerate();
    lines.map(|(at, line)| format!("{}{}\n", if at == 0 { mark } else { &blank }, harmless(line.trim_end()))).collect()
}

impl Serialize for Probe {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut probe = to.serialize_struct("Probe", 6)?;
        probe.serialize_field("number", &self.number)?;
        probe.serialize_field("name", self.name())?;
        probe.serialize_field("tenant", &self.tenant)?;
        probe.serialize_field("verdict", &self.verdict)?;
        probe.serialize_field("evidence", &self.evidence)?;
        probe.serialize_field("advice", &self.advice)?;
        probe.end()
    }
}

/// The whole examination.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) verdict: Verdict,
    /// Requests to Microsoft that it took, tokens and empty ones included.
    pub(super) requests: u64,
    /// What --fix did, one line each.
    pub(super) fixed: Vec<String>,
    /// 1, then 2 to 24 of each tenant, then 25.
    pub(super) probes: Vec<Probe>,
}

impl Report {
    pub(super) fn new(probes: Vec<Probe>, requests: u64, fixed: Vec<String>) -> Self {
        let worst = probes.iter().map(|probe| probe.verdict).max().unwrap_or(Verdict::Ok);
        Self { verdict: worst.max(Verdict::Ok), requests, fixed, probes }
    }

    pub(super) fn exit(&self) -> Exit {
        match self.verdict {
            Verdict::Skipped | Verdict::Ok | Verdict::Note => Exit::Fine,
            Verdict::Warning => Exit::Ailing,
            Verdict::Failure => Exit::Ill,
        }
    }

    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.probes.iter().filter(|probe| probe.verdict == verdict).count()
    }

    /// One line a probe; below it what was found and what to do.
    pub(super) fn told(&self, is_verbose: bool) -> String {
        let mut text = String::new();
        let mut tenant: Option<&str> = None;
        for probe in &self.probes {
            let now = probe.tenant.as_deref();
            if now != tenant {
                text += &now.map_or_else(|| "\n".to_owned(), |name| format!("\ntenant {}\n", harmless(name)));
                tenant = now;
            }
            text += &probe.lines(is_verbose);
        }
        for fixed in &self.fixed {
            text += &indented("fixed: ", fixed);
        }
        let counts = [(Verdict::Failure, "failure"), (Verdict::Warning, "warning"), (Verdict::Note, "note")];
        let counts: Vec<String> = counts
            .into_iter()
            .map(|(verdict, noun)| (self.count(verdict), noun))
            .filter(|(count, _)| *count > 0)
            .map(|(count, noun)| if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") })
            .collect();
        let sum = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
        text + &format!("\n{sum}; {} requests to Microsoft\n", self.requests)
    }
}

/// Adds a skipped probe for every number of `numbers` that has none yet.
pub(super) fn skip_rest(probes: &mut Vec<Probe>, numbers: impl IntoIterator<Item = u8>, why: &str) {
    for number in numbers {
        if !probes.iter().any(|probe| probe.number == number) {
            probes.push(Probe::skipped(number, why));
        }
    }
}

/// An error with its causes, finishing the sentence "could not …".
pub(super) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    format!("could not {}", texts.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let of = |tenant: &str, probe: Probe| Probe { tenant: Some(tenant.to_owned()), ..probe };
        let bad = Probe::of(6)
            .see("roles: ActivityFeed.ReadDlp\u{1b}[2J")
            .find(Verdict::Warning, "one thing", "do this")
            .find(Verdict::Failure, "another\nof two lines", "do that")
            .find(Verdict::Note, "a third", "do that");
        let probes = vec![
            Probe::of(1).see("o365feed.yaml: 1 tenant"),
            of("contoso", Probe::of(2).see("manage.office.com:443: 30 ms")),
            of("contoso", bad),
            of("contoso", Probe::skipped(8, "probe 6 failed")),
            Probe::of(25).find(Verdict::Note, "1 broker", ""),
        ];
        Report::new(probes, 7, vec!["started DLP.All of contoso".to_owned()])
    }

    #[test]
    fn people_read_one_line_a_probe_and_more_only_where_something_was_found() {
        insta::assert_snapshot!(report().told(false));
    }

    #[test]
    fn the_worst_verdict_is_the_exit_code_and_notes_are_none() {
        let exit = |verdict| Report::new(vec![Probe::of(1).find(verdict, "", "")], 0, Vec::new()).exit().code();
        use Verdict::{Failure, Note, Ok, Skipped, Warning};
        assert_eq!([Skipped, Ok, Note, Warning, Failure].map(exit), [0, 0, 0, 8, 9]);
        assert_eq!(report().verdict, Failure);
    }

    #[test]
    fn every_probe_stands_in_the_documentation_in_its_order() {
        let page = include_str!("../../../docs/doctor.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains(" | ")).collect();
        for (at, name) in NAMES.iter().enumerate() {
            let row = format!("| {} | {name} |", at + 1);
            assert_eq!(rows.iter().filter(|line| line.starts_with(&row)).count(), 1, "{row}");
        }
    }

    #[test]
    fn programs_get_number_name_verdict_evidence_and_advice() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["probes"][2]["verdict"], "failure");
        assert_eq!(json["probes"][2]["name"], "role ActivityFeed.Read");
        assert_eq!(json["probes"][2]["advice"], serde_json::json!(["do this", "do that"]));
        assert_eq!(json["probes"][0]["tenant"], serde_json::Value::Null);
    }
}
