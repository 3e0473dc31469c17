//! Spans for an OpenTelemetry collector (OTLP: protobuf over http), when the settings name one.
//! They are sent in batches, by a thread of their own; nothing else ever waits for the collector.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use reqwest::redirect;
use tokio::runtime::Handle;
use tracing::{Level, info, warn};
use tracing_subscriber::{Layer, Registry, filter::Targets};
use url::Url;

/// How long one batch may take. Meanwhile others wait in a queue, and are dropped when it is full.
const SEND: Duration = Duration::from_secs(5);

/// How long the last batch may take when the process ends.
const LAST: Duration = Duration::from_secs(1);

/// Contents that one span names. A page of a listing has hundreds.
const CONTENTS_MAX: u32 = 4_096;

/// The answer to a batch is a few bytes.
const ANSWER_MAX: usize = 64 * 1_024;

/// The export of spans, while it goes on.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to send; within a runtime, which must live until [`Self::end`]. `slot` tells this process from others.
    /// `is_here`: the collector is on this machine, where no proxy leads to.
    ///
    /// # Errors
    /// When the address or what the environment says in `OTEL_…` cannot be used. That nobody listens is none.
    pub(super) fn begin(collector: &Url, is_here: bool, slot: &str) -> Result<Self, TracesError> {
        let builder = reqwest::Client::builder().redirect(redirect::Policy::none()).timeout(SEND);
        let builder = if is_here { builder.no_proxy() } else { builder };
        let client = Client { http: builder.build()?, runtime: Handle::current() };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", collector.as_str().trim_end_matches('/')))
            .build()?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let instance = KeyValue::new("service.instance.id", slot.to_owned());
        let resource = Resource::builder().with_service_name("o365feed").with_attributes([version, instance]).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Told { exporter, is_failing: AtomicBool::new(false) })
            .with_max_events_per_span(CONTENTS_MAX)
            .with_max_links_per_span(CONTENTS_MAX)
            .with_resource(resource)
            .build();
        Ok(Self { provider })
    }

    /// What hands our spans over, with the lines logged within them, down to the names of contents (debug).
    pub(super) fn layer(&self) -> impl Layer<Registry> + Send + Sync + use<> {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("o365feed"))
            // What nobody reads, and where in the sources a line stands.
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_filter(Targets::new().with_target("o365feed", Level::DEBUG))
    }

    /// Sends what has ended and is not sent yet; a collector that does not answer costs a second.
    pub async fn end(self) {
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST));
        if let Ok(Err(fault)) = ended.await {
            warn!("the last spans did not reach the collector: {fault}");
        }
    }
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    #[error("could not use traces.otlp_endpoint: {0}")]
    Exporter(#[from] ExporterBuildError),
    #[error("could not make a client for traces.otlp_endpoint: {0}")]
    Client(#[from] reqwest::Error),
}

/// Sends on the runtime, whichever thread asks: the exporter's own has none.
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let mut answer = http.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
                body.extend_from_slice(&chunk);
                if ANSWER_MAX < body.len() {
                    return Err("the answer is longer than that of a collector".into());
                }
            }
            Ok(Response::builder().status(answer.status()).body(body.into())?)
        });
        Box::pin(async move { sending.await? })
    }
}

/// Says once that spans do not arrive, and once that they do again.
#[derive(Debug)]
struct Told {
    exporter: opentelemetry_otlp::SpanExporter,
    is_failing: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        match (&sent, self.is_failing.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(fault), false) => warn!("spans do not reach the collector and are dropped: {fault}"),
            (Ok(()), true) => info!("spans reach the collector again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
