//! `o365feed demo`: a simulated tenant, a broker and the real pipeline in one process, and an account of it at the end.
//! It needs nothing but the binary; with `--bootstrap` the broker is a real one, and exactly-once is shown.

mod figures; // what the metrics say, for a person
mod glimpse; // a record in one line
mod reader; // reads the topics along, as any consumer would
mod stage; // simulator, broker and settings
mod verdict; // what was owed against what is there
mod view; // a live view on a terminal, plain lines elsewhere

use std::{pin::Pin, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use jiff::SignedDuration;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use self::{
    figures::Figures,
    reader::Reader,
    stage::Stage,
    verdict::{Owed, Verdict},
    view::View,
};
use super::{Exit, Failure, run::failure, signals::interrupted};
use crate::{
    http::{Health, serve},
    pipeline::{self, PipelineError, Topics},
    telemetry::Metrics,
};

/// What to show, and where.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// End by itself after this long, such as `20s` or `5m`, and give the account; without it, on Ctrl-C
    #[arg(long = "for", value_name = "TIME")]
    pub lasting: Option<SignedDuration>,
    /// Use this Kafka instead of the mock, exactly once, in topics of its own that stay
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap: Option<String>,
    /// Records that the simulated tenant makes every minute, over all content types
    #[arg(long, value_name = "COUNT", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub records_per_minute: u32,
    /// The same seed gives the same ids
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// How long what is owed may take to arrive after the end was asked for. Longer than a first join and a retry or two.
const ARRIVAL: Duration = Duration::from_secs(60);

/// How often the view is brought up to date.
const LOOK: Duration = Duration::from_millis(250);

/// Runs the demo to its end and prints the account.
///
/// # Errors
/// [`Exit::Incomplete`] when the account does not balance; [`Exit::Usage`] for a time that is negative; what ended the
/// pipeline, when something did.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let lasting = args.lasting.map(Duration::try_from).transpose();
    let lasting = lasting.map_err(|_| Failure::new(Exit::Usage, anyhow!("could not use a negative --for")))?;
    let mut view = View::fitting(lasting);
    view.take_logs()?;
    // Begins when the stage is set: until then there is nothing to account for, and Ctrl-C ends the process.
    let enough = async {
        let interrupted = interrupted()?;
        match lasting {
            Some(lasting) => tokio::select! { () = sleep(lasting) => {}, () = interrupted.cancelled() => {} },
            None => interrupted.cancelled().await,
        }
        Ok(())
    };
    let played = play(&args, &mut view, enough).await;
    view.end();
    let verdict = played?;
    if verdict.later > 0 {
        view.say(&format!("{} more came after the end was asked for; they are in the topics as well.", verdict.later));
    }
    view.say(&verdict.to_string());
    if verdict.holds() { Ok(()) } else { Err(Failure::new(Exit::Incomplete, anyhow!("the account does not balance"))) }
}

/// Plays until `enough`, waits for what is owed by then, stops the pipeline and compares.
async fn play(
    args: &DemoArgs,
    view: &mut View,
    enough: impl Future<Output = Result<(), Failure>>,
) -> Result<Verdict, Failure> {
    view.say(&stage::introduction(args));
    let stage = Stage::set(args).await?;
    let (metrics, health, stop) = (Metrics::new(), Health::new(), CancellationToken::new());
    let serving = CancellationToken::new();
    let _ends_serving = serving.clone().drop_guard();
    let served = serve(stage.settings.http.listen, metrics.clone(), health.clone(), serving)
        .await
        .map_err(|fault| Failure::new(Exit::Usage, fault))?;
    view.say(&stage.places(served.address));
    let reader = Reader::start(&stage.settings).context("could not read the topics")?;
    // The topics are there by now; a real broker's are checked like anybody's.
    let topics = if args.bootstrap.is_some() { Topics::Ensure } else { Topics::Trust };
    let running = pipeline::run(stage.settings.clone(), topics, metrics.clone(), health, stop.clone());
    let mut show = Show { view, metrics, reader, pipeline: Box::pin(running) };

    show.until(enough).await??;
    let due = Owed::by(&stage.simulator.truth().records(stage.simulator.now()));
    show.view.say("Ending: what is available by now is waited for.");
    let reader = show.reader.clone();
    show.until(arrived(&reader, &due)).await?;
    stop.cancel();
    let Show { view, pipeline, .. } = show;
    view.say("Ending: the pipeline finishes, and the topics are read to their ends.");
    pipeline.await.map_err(failure)?;
    let seen = tokio::task::spawn_blocking(move || reader.finish()).await.context("the reader ended by a panic")??;
    let owed = Owed { due, may_be: Owed::by_or_excused(&stage.simulator.truth().now()) };
    stage.clear().await?;
    Ok(owed.verdict(&seen))
}

/// What is watched while it runs.
struct Show<'a, P> {
    view: &'a mut View,
    metrics: Metrics,
    reader: Reader,
    pipeline: Pin<Box<P>>,
}

impl<P: Future<Output = Result<(), PipelineError>>> Show<'_, P> {
    /// Keeps the view up to date until `over`.
    ///
    /// # Errors
    /// The pipeline's, when it ends before.
    async fn until<T>(&mut self, over: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(over);
        let mut looks = interval(LOOK);
        loop {
            tokio::select! {
                over = &mut over => return Ok(over),
                outcome = &mut self.pipeline => {
                    outcome.map_err(failure)?;
                    return Err(anyhow!("the pipeline ended without being asked").into());
                }
                _ = looks.tick() => self.view.show(&Figures::of(&self.metrics), self.reader.newest()),
            }
        }
    }
}

/// Waits until everything in `due` was read, or for [`ARRIVAL`]: the account tells what is missing then.
async fn arrived(reader: &Reader, due: &verdict::Counts) {
    let deadline = Instant::now() + ARRIVAL;
    while !reader.has_seen(due) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_short_demo_balances() {
        let args = DemoArgs { lasting: None, bootstrap: None, records_per_minute: 600, seed: 7 };
        let verdict = play(&args, &mut View::hidden(), async { Ok(()) }).await.unwrap();
        let line = verdict.to_string();
        let made: u64 = line.split(' ').next().unwrap().parse().unwrap();
        assert!(made > 5_000, "the history alone is more: {line}");
        assert_eq!(line, format!("{made} made available, {made} published, 0 missing, 0 duplicate, 0 gaps"));
        assert!(verdict.holds());
    }
}
