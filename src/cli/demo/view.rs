//! What a person sees while it runs: a few lines that renew themselves on a terminal, else a plain line now and then.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;

use super::{figures::Figures, reader::SHOWN};
use crate::{
    cli::{Exit, Failure},
    config::{Log, LogFormat},
    telemetry::init_logs,
};

/// The live view.
pub struct View {
    surface: Surface,
    rate: Rate,
    /// When it was first shown.
    began: Option<Instant>,
    lasting: Option<Duration>,
}

enum Surface {
    Live(Box<Live>),
    Plain {
        /// When the last line was printed.
        told: Option<Instant>,
        /// Records are shown until there were enough of them.
        shown: usize,
    },
    /// For tests.
    #[cfg(test)]
    Hidden,
}

struct Live {
    lines: MultiProgress,
    records: [ProgressBar; SHOWN],
    flow: ProgressBar,
    work: ProgressBar,
    hint: ProgressBar,
}

/// Between two plain lines.
const PLAIN: Duration = Duration::from_secs(2);

impl View {
    /// Live when both standard output and standard error are a terminal, else plain: no escape codes, nothing rewritten.
    pub fn fitting(lasting: Option<Duration>) -> Self {
        let target = ProgressDrawTarget::stderr();
        let surface = if io::stdout().is_terminal() && !target.is_hidden() {
            Surface::Live(Box::new(Live::on(MultiProgress::with_draw_target(target))))
        } else {
            Surface::Plain { told: None, shown: 0 }
        };
        Self { surface, rate: Rate::default(), began: None, lasting }
    }

    #[cfg(test)]
    pub fn hidden() -> Self {
        Self { surface: Surface::Hidden, rate: Rate::default(), began: None, lasting: None }
    }

    /// Warnings and worse go to standard error, above the live lines.
    ///
    /// # Errors
    /// When logging was started before.
    pub fn take_logs(&self) -> Result<(), Failure> {
        let Surface::Live(live) = &self.surface else {
            let log = Log { format: LogFormat::Text, level: "warn".to_owned() };
            return init_logs(&log).map_err(|fault| Failure::new(Exit::Unexpected, fault));
        };
        let lines = live.lines.clone();
        // As in `telemetry`: every end of a partition is an error there.
        let filter = EnvFilter::new("warn,rdkafka::client=off");
        let above = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || Above(lines.clone()));
        above.try_init().map_err(|fault| anyhow::anyhow!("could not start logging: {fault}").into())
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        match &self.surface {
            Surface::Live(live) => live.lines.suspend(|| print(line)),
            Surface::Plain { .. } => print(line),
            #[cfg(test)]
            Surface::Hidden => {}
        }
    }

    /// The pipeline at this moment, with the newest records and how many of them are new.
    pub fn show(&mut self, figures: &Figures, (newest, fresh): (Vec<String>, usize)) {
        let rate = self.rate.of(Instant::now(), figures.records);
        let elapsed = self.began.get_or_insert_with(Instant::now).elapsed();
        match &mut self.surface {
            Surface::Live(live) => {
                live.show(figures, rate, &newest, &clock(elapsed, self.lasting));
            }
            Surface::Plain { told, shown } => {
                let new = newest.iter().skip(newest.len() - fresh).take(SHOWN.saturating_sub(*shown));
                *shown += new.inspect(|line| print(line)).count();
                if told.is_none_or(|told| told.elapsed() >= PLAIN) {
                    *told = Some(Instant::now());
                    print(&format!("{}: {}, {}", clock(elapsed, self.lasting), flow(figures, rate), work(figures)));
                }
            }
            #[cfg(test)]
            Surface::Hidden => {}
        }
    }

    /// Takes the live lines away; what was said stays, and the last figures.
    pub fn end(&self) {
        if let Surface::Live(live) = &self.surface {
            // A terminal that is gone has nothing to clear.
            let _ = live.lines.clear();
            print(&format!("At the end: {}, {}", live.flow.message(), live.work.message()));
        }
    }
}

impl Live {
    fn on(lines: MultiProgress) -> Self {
        let line = |template: &str| {
            let style = ProgressStyle::with_template(template).expect("the templates below are good, as a test shows");
            lines.add(ProgressBar::new_spinner().with_style(style))
        };
        Self {
            records: [(); SHOWN].map(|()| line(RECORD)),
            flow: line(FLOW),
            work: line(WORK),
            hint: line(HINT),
            lines,
        }
    }

    fn show(&self, figures: &Figures, rate: f64, newest: &[String], clock: &str) {
        for (line, record) in self.records.iter().zip(newest) {
            line.set_message(record.clone());
        }
        self.flow.set_prefix(clock.to_owned());
        self.flow.set_message(flow(figures, rate));
        self.flow.tick();
        self.work.set_message(work(figures));
        self.hint.set_message("Ctrl-C ends it and gives the account");
    }
}

/// `wide_msg` is cut to the width of the terminal.
const RECORD: &str = "  {wide_msg:.dim}";
const FLOW: &str = "{spinner} {prefix}  {wide_msg}";
const WORK: &str = "  {wide_msg}";
const HINT: &str = "  {msg:.dim}";

/// Time since the start, and until the end when it is known.
fn clock(elapsed: Duration, lasting: Option<Duration>) -> String {
    match lasting {
        Some(lasting) => format!("{}/{} s", elapsed.min(lasting).as_secs(), lasting.as_secs()),
        None => format!("{} s", elapsed.as_secs()),
    }
}

fn flow(figures: &Figures, rate: f64) -> String {
    let newest = match figures.freshness_seconds {
        Some(age) => format!("newest {age:.0} s old"),
        None => "joining the group".to_owned(),
    };
    let records = HumanCount(figures.records);
    format!("{records} records, {}/s, backlog {} contents, {newest}", HumanCount(rate as u64), figures.backlog)
}

fn work(figures: &Figures) -> String {
    format!(
        "{} repeats left out, {:.1}% of the budget used, {} gaps, {} transactions",
        HumanCount(figures.repeats),
        100.0 * figures.budget_used,
        figures.gaps,
        HumanCount(figures.transactions)
    )
}

/// Records a second over the last few seconds, because commits come in bursts.
#[derive(Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    const OVER: Duration = Duration::from_secs(3);

    fn of(&mut self, now: Instant, records: u64) -> f64 {
        self.0.push_back((now, records));
        while self.0.len() > 2 && now.duration_since(self.0[1].0) >= Self::OVER {
            self.0.pop_front();
        }
        let (since, before) = self.0[0];
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds > 0.0 { records.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

/// Standard error, above the live lines.
struct Above(MultiProgress);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_good() {
        drop(Live::on(MultiProgress::with_draw_target(ProgressDrawTarget::hidden())));
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.of(at(0), 100), 0.0);
        assert_eq!(rate.of(at(1), 300), 200.0);
        assert_eq!(rate.of(at(3), 400), 100.0);
        assert_eq!(rate.of(at(4), 500), 200.0 / 3.0, "what lies further back is forgotten");
    }

    #[test]
    fn the_figures_read_as_a_sentence() {
        let figures =
            Figures { records: 12_345, repeats: 67, backlog: 3, freshness_seconds: Some(1.6), ..Figures::default() };
        let figures = Figures { budget_used: 0.0125, transactions: 9, ..figures };
        assert_eq!(flow(&figures, 51.9), "12,345 records, 51/s, backlog 3 contents, newest 2 s old");
        assert_eq!(work(&figures), "67 repeats left out, 1.2% of the budget used, 0 gaps, 9 transactions");
        assert_eq!(clock(Duration::from_secs(25), Some(Duration::from_secs(20))), "20/20 s");
    }
}
