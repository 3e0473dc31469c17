//! One request: a token, a permit, the answer or what went wrong. The only place that sends anything to the API.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};
use reqwest::{
    Method, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use secrecy::ExposeSecret;
use tokio::time::{Instant, error::Elapsed, timeout};
use url::Url;

use super::{
    auth::{Auth, Token},
    classify::{self, Bad},
    error::{ApiError, Operation},
    limiter::{Class, Limiter, Permit},
    meter::Meter,
    wire,
};

/// How long nothing may happen. There is no limit for a whole body: a large blob on a slow line is healthy.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// From sending a request to the answer's headers.
    pub first_byte: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), first_byte: Duration::from_secs(60), idle: Duration::from_secs(60) }
    }
}

/// As much of a bad answer as is read.
const SMALL_BODY_MAX: usize = 64 * 1024;

/// What all calls of one tenant share.
pub struct Caller {
    pub http: reqwest::Client,
    pub auth: Auth,
    pub limiter: Limiter,
    pub meter: Meter,
    pub timeouts: Timeouts,
    pub skew: Mutex<Option<SignedDuration>>,
}

impl Caller {
    /// Sends and gives back the answer if it is a success, its body unread.
    ///
    /// A 401 is met with another token and the same request once more; each request sent takes its own permit.
    pub async fn call(&self, operation: Operation, url: &Url) -> Result<Response, ApiError> {
        self.call_with(operation, url, Bytes::new()).await
    }

    /// [`Self::call`] with a body of JSON, unless it is empty.
    pub async fn call_with(&self, operation: Operation, url: &Url, body: Bytes) -> Result<Response, ApiError> {
        let mut is_first = true;
        loop {
            let (token, permit) = self.ready(operation).await?;
            let response = self.send((operation, url, &body), &token, &permit).await;
            match response {
                Err(ApiError::Denied(answer)) if answer.status == 401 && is_first => {
                    self.auth.refused(&token);
                    is_first = false;
                }
                Err(error) => {
                    if !matches!(error, ApiError::AlreadySo(_)) {
                        self.meter.error(&error);
                    }
                    return Err(error);
                }
                Ok(response) => return Ok(response),
            }
        }
    }

    /// A token and a permit, both good now: between this and sending nothing is waited for, so that a pause that began
    /// in the meantime holds this request too.
    async fn ready(&self, operation: Operation) -> Result<(Arc<Token>, Permit), ApiError> {
        let class = match operation {
            Operation::Blob => Class::Blob,
            Operation::List
            | Operation::Notifications
            | Operation::Token
            | Operation::Start
            | Operation::Stop
            | Operation::Subscriptions => Class::Listing,
        };
        let token = self.auth.token().await?;
        let permit = self.limiter.permit(class).await;
        if token.is_usable() {
            return Ok((token, permit));
        }
        // It lapsed while this waited in a long pause. Should the next one lapse too, the 401 will tell.
        let token = self.auth.token().await?;
        Ok((token, self.limiter.permit(class).await))
    }

    async fn send(
        &self,
        (operation, url, body): (Operation, &Url, &Bytes),
        token: &Token,
        permit: &Permit,
    ) -> Result<Response, ApiError> {
        let request = self.request(operation, url, body, token);
        let sent_at = Instant::now();
        let sent = timeout(self.timeouts.first_byte, self.http.execute(request)).await;
        let status = sent.as_ref().ok().and_then(|sent| sent.as_ref().ok()).map(|answer| answer.status().as_u16());
        self.meter.request(operation, status, sent_at.elapsed());
        let mut response = came(operation, self.timeouts.first_byte, sent)?;
        self.note_clock(&response);
        if response.status().is_success() {
            self.limiter.answered(permit);
            return Ok(response);
        }
        let body = small_body(&mut response, self.timeouts.idle).await;
        let error = classify::of_service(Bad {
            operation,
            status: response.status().as_u16(),
            body: &body,
            retry_after: wire::retry_after(response.headers(), Timestamp::now()),
            request_id: wire::request_id(response.headers()),
        });
        Err(self.pause_if_throttled(error, permit))
    }

    fn request(&self, operation: Operation, url: &Url, body: &Bytes, token: &Token) -> reqwest::Request {
        let method = match operation {
            Operation::Start | Operation::Stop | Operation::Token => Method::POST,
            Operation::List | Operation::Notifications | Operation::Blob | Operation::Subscriptions => Method::GET,
        };
        let mut request = reqwest::Request::new(method, url.clone());
        let headers = request.headers_mut();
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.text().expose_secret()))
            .expect("a token is taken in only when it is all visible ASCII");
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
            *request.body_mut() = Some(body.clone().into());
        } else if matches!(operation, Operation::Start | Operation::Stop) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        request
    }

    fn pause_if_throttled(&self, error: ApiError, permit: &Permit) -> ApiError {
        match error {
            ApiError::Throttled { answer, after } => {
                let wait = self.limiter.refused(permit, after, rand::random());
                ApiError::Throttled { answer, after: Some(wait) }
            }
            other => other,
        }
    }

    fn note_clock(&self, response: &Response) {
        if let Some(theirs) = wire::date(response.headers()) {
            let ahead = theirs.duration_since(Timestamp::now());
            *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
    }
}

/// The answer, or why none came. The url is left out of the cause: it may carry what the log need not have.
pub fn came(
    operation: Operation,
    waited: Duration,
    sent: Result<Result<Response, reqwest::Error>, Elapsed>,
) -> Result<Response, ApiError> {
    match sent {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(e)) => Err(ApiError::Unreachable { operation, source: Arc::new(e.without_url()) }),
        Err(_) => Err(ApiError::TimedOut { operation, waited }),
    }
}

/// The next piece of a body, `None` at its end.
pub async fn piece(operation: Operation, response: &mut Response, idle: Duration) -> Result<Option<Bytes>, ApiError> {
    match timeout(idle, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(e)) => Err(ApiError::BrokeOff { operation, source: Arc::new(e.without_url()) }),
        Err(_) => Err(ApiError::TimedOut { operation, waited: idle }),
    }
}

/// The start of a body that only explains something: what cannot be read is left out.
pub async fn small_body(response: &mut Response, idle: Duration) -> Bytes {
    let mut body = BytesMut::new();
    while body.len() < SMALL_BODY_MAX {
        match timeout(idle, response.chunk()).await {
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece[..piece.len().min(SMALL_BODY_MAX - body.len())]),
            Ok(Ok(None) | Err(_)) | Err(_) => break,
        }
    }
    body.freeze()
}

/// A whole body of at most `max` bytes.
pub async fn whole_body(
    operation: Operation,
    mut response: Response,
    idle: Duration,
    max: usize,
) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    while let Some(piece) = piece(operation, &mut response, idle).await? {
        if max < body.len() + piece.len() {
            return Err(ApiError::Unreadable { operation, why: format!("it is longer than {max} bytes") });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::{
        api::stage::{PUBLISHER, Stage, af, listed, ok, reply},
        domain::{ContentType, Fate},
    };

    /// `[{"Id":1}]`
    const GZIPPED: &[u8] = &[
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 139, 174, 86, 242, 76, 81, 178, 50, 172, 141, 5, 0, 248, 145, 88, 167, 10, 0,
        0, 0,
    ];

    async fn fetch(stage: &Stage) -> Result<Vec<u8>, ApiError> {
        let mut blob = stage.api.fetch(&listed("", "1$2")).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = blob.chunk().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn every_call_carries_the_token_the_publisher_and_the_agreed_headers() {
        let stage = Stage::with_tokens(|_, _| ok("[]")).await;
        fetch(&stage).await.unwrap();
        stage.api.subscriptions().await.unwrap();
        stage.api.start(ContentType::Dlp).await.unwrap();
        stage.api.stop(ContentType::Dlp).await.unwrap();
        let asked = stage.asked();
        assert_eq!(asked.len(), 4);
        for one in &asked {
            assert_eq!(one.header("authorization"), "Bearer token-1");
            assert_eq!(one.header("accept"), "application/json");
            assert!(one.header("user-agent").starts_with("o365feed/"));
            assert!(one.header("accept-encoding").contains("gzip"));
            assert!(one.query.contains(&format!("PublisherIdentifier={PUBLISHER}")));
        }
        for one in &asked[2..] {
            assert_eq!((one.method.as_str(), one.header("content-length")), ("POST", "0"));
        }
        assert_eq!(stage.meter.requests(Operation::Blob, "200"), 1);
    }

    #[tokio::test]
    async fn a_stale_token_is_replaced_and_the_request_sent_again() {
        let stage = Stage::with_tokens(|asked, _| match asked.header("authorization") {
            "Bearer token-1" => reply(401, &[], r#"{"Message":"Authorization has been denied for this request."}"#),
            _ => ok("[]"),
        })
        .await;
        assert_eq!(fetch(&stage).await.unwrap(), b"[]");
        assert_eq!((stage.asked().len(), stage.token_requests().len()), (2, 2));
    }

    #[tokio::test]
    async fn a_second_refusal_is_for_a_person_and_does_not_fetch_tokens_without_end() {
        let stage = Stage::with_tokens(|_, _| af(401, "AF10001")).await;
        for _ in 0..3 {
            let error = fetch(&stage).await.unwrap_err();
            assert_eq!(error.fate(), Fate::Operator);
            assert_eq!(error.code(), "AF10001");
        }
        assert_eq!((stage.asked().len(), stage.token_requests().len()), (6, 2));
    }

    #[tokio::test]
    async fn many_callers_with_one_stale_token_fetch_one_other() {
        let stage = Stage::with_tokens(|asked, _| match asked.header("authorization") {
            "Bearer token-1" => reply(401, &[], ""),
            _ => ok("[]"),
        })
        .await;
        let all = futures_util::future::join_all((0..20).map(|_| fetch(&stage))).await;
        assert!(all.into_iter().all(|one| one.is_ok()));
        assert_eq!(stage.token_requests().len(), 2);
    }

    #[tokio::test]
    async fn a_403_that_is_a_throttle_pauses_the_tenant_for_as_long_as_it_says() {
        let stage = Stage::with_tokens(|_, _| {
            reply(403, &[("retry-after", "600")], r#"{"error":{"code":"AF429","message":"Too many requests."}}"#)
        })
        .await;
        let error = fetch(&stage).await.unwrap_err();
        let Fate::Throttled { after: Some(after) } = error.fate() else { panic!("{error:?}") };
        assert_eq!(after.as_secs().max(599), after.as_secs());
        assert_eq!((stage.meter.refusals(), stage.meter.errors("AF429")), (1, 1));
        let other_call = timeout(Duration::from_millis(50), stage.api.subscriptions()).await;
        assert!(other_call.is_err(), "a call went through during the pause");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let stage = Stage::with_tokens(|_, root| reply(302, &[("location", &format!("{root}/elsewhere"))], "")).await;
        assert!(matches!(fetch(&stage).await, Err(ApiError::Unknown(_))));
        assert_eq!(stage.asked().len(), 1);
    }

    #[tokio::test]
    async fn a_gzipped_body_is_unpacked() {
        let stage = Stage::with_tokens(|_, _| reply(200, &[("content-encoding", "gzip")], GZIPPED)).await;
        assert_eq!(fetch(&stage).await.unwrap(), br#"[{"Id":1}]"#);
    }

    #[tokio::test]
    async fn a_body_cut_short_is_no_end() {
        // The pause lets the first piece out before the connection is torn down.
        let cut = || async {
            tokio::task::yield_now().await;
            Err(std::io::Error::other("cut"))
        };
        let body = move || Body::from_stream(stream::iter([Ok("[1,")]).chain(stream::once(cut())));
        let stage = Stage::with_tokens(move |_, _| ok(body())).await;
        let error = fetch(&stage).await.unwrap_err();
        assert!(matches!(error, ApiError::BrokeOff { .. }), "{error:?}");
        assert_eq!(error.fate(), Fate::Retry { after: None });
        let gzip = |_: &_, _: &str| reply(200, &[("content-encoding", "gzip")], &GZIPPED[..GZIPPED.len() - 12]);
        assert!(matches!(fetch(&Stage::with_tokens(gzip).await).await, Err(ApiError::BrokeOff { .. })));
    }

    #[tokio::test]
    async fn silence_ends_a_call_before_the_headers_and_within_the_body() {
        let stalled = || Body::from_stream(stream::iter([Ok::<_, std::io::Error>("[")]).chain(stream::pending()));
        let stage = Stage::with_tokens(move |_, _| ok(stalled())).await;
        assert!(matches!(fetch(&stage).await, Err(ApiError::TimedOut { operation: Operation::Blob, .. })));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let deaf = format!("http://{}/", listener.local_addr().unwrap());
        let sent = timeout(Duration::from_millis(100), stage.api.caller.http.get(deaf).send()).await;
        let error = came(Operation::List, Duration::from_millis(100), sent).unwrap_err();
        assert_eq!((error.code(), error.fate()), ("timeout", Fate::Retry { after: None }));
    }

    #[tokio::test]
    async fn an_error_body_without_end_is_read_only_so_far() {
        let endless = || Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(4096))));
        let stage = Stage::with_tokens(move |_, _| reply(500, &[], endless())).await;
        let error = fetch(&stage).await.unwrap_err();
        assert!(error.to_string().len() < 500);
        assert!(matches!(error, ApiError::Unavailable { .. }));
    }

    #[tokio::test]
    async fn nobody_there_is_passing_trouble_and_names_no_url() {
        let stage = Stage::with_tokens(|_, _| ok("[]")).await;
        stage.api.check_token().await.unwrap();
        let sent = stage.api.caller.http.get("http://127.0.0.1:1/?secret=1").send().await;
        let error = came(Operation::List, Duration::ZERO, Ok(sent)).unwrap_err();
        assert_eq!(error.fate(), Fate::Retry { after: None });
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[tokio::test]
    async fn the_services_clock_is_read_from_every_answer() {
        let stage = Stage::with_tokens(|_, _| reply(200, &[("date", "Thu, 01 Jan 2099 00:00:00 GMT")], "[]")).await;
        assert_eq!(stage.api.server_clock_skew(), None);
        stage.api.subscriptions().await.unwrap();
        assert!(SignedDuration::from_hours(24) < stage.api.server_clock_skew().unwrap());
    }

    #[tokio::test]
    async fn a_start_of_what_runs_already_is_done_and_counts_as_no_error() {
        let stage = Stage::with_tokens(|_, _| af(400, "AF20024")).await;
        assert_eq!(stage.api.start(ContentType::General).await.unwrap_err().fate(), Fate::Done);
        assert_eq!(stage.meter.errors("AF20024"), 0);
    }
}
