use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use openssl::{
    hash::MessageDigest,
    rsa::Padding,
    sign::{RsaPssSaltlen, Signer},
    x509::X509,
};
use serde_json::json;

use super::*;
use crate::api::stage::self_signed;

async fn ask(world: &World, tenant: &str, version: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let url = world.sim.api_root().join(&format!("{tenant}/oauth2{version}/token")).unwrap();
    let answer = world.client.post(url).form(form).send().await.unwrap();
    (answer.status().as_u16(), read(answer).await)
}

fn tenant() -> TenantScenario {
    TenantScenario::default()
}

#[tokio::test]
async fn s1_version_1_gives_numbers_as_strings_and_version_2_as_numbers() {
    let world = World::of(tenant()).await;
    let (id, known) = (tenant().id.to_string(), tenant());
    let mut form = vec![
        ("grant_type", "client_credentials"),
        ("client_id", known.client_id.as_str()),
        ("client_secret", known.client_secret.expose_secret()),
        ("resource", "https://manage.office.com"),
    ];
    let (status, v1) = ask(&world, &id, "", &form).await;
    assert_eq!((status, v1["expires_in"].as_str(), v1["token_type"].as_str()), (200, Some("3599"), Some("Bearer")));
    assert_eq!(v1["resource"], "https://manage.office.com");
    form[3] = ("scope", "https://manage.office.com/.default");
    let (status, v2) = ask(&world, &id, "/v2.0", &form).await;
    assert_eq!((status, v2["expires_in"].as_u64(), v2.get("resource")), (200, Some(3_599), None));
    form.push(("resource", "https://manage.office.com"));
    assert_eq!(ask(&world, &id, "/v2.0", &form).await.1["error_codes"][0], 901_002);
}

#[tokio::test]
async fn s1_a_wrong_tenant_client_or_secret_is_refused_as_the_login_service_does() {
    let world = World::of(tenant()).await;
    let (id, known) = (tenant().id.to_string(), tenant());
    let cases = [
        ("00000000-0000-0000-0000-000000000009", known.client_id.as_str(), "x", 400, "invalid_request", 90_002),
        (&id, "somebody-else", "x", 400, "unauthorized_client", 700_016),
        (&id, known.client_id.as_str(), "x", 401, "invalid_client", 7_000_215),
    ];
    for (id, client, secret, status, error, number) in cases {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
            ("scope", "https://manage.office.com/.default"),
        ];
        let (was, body) = ask(&world, id, "/v2.0", &form).await;
        assert_eq!((was, body["error"].as_str(), body["error_codes"][0].as_u64()), (status, Some(error), Some(number)));
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{number}: ")));
        assert!(!body.to_string().contains(known.client_secret.expose_secret()));
    }
}

#[tokio::test]
async fn s3_a_token_carries_its_claims_and_lapses() {
    let world = World::of(TenantScenario { token_lifetime: seconds(2), roles: vec![], ..tenant() }).await;
    let [header, claims, signature] = world.token.split('.').collect::<Vec<_>>().try_into().unwrap();
    assert!([header, claims, signature].iter().all(|part| !part.is_empty()));
    let claims = decode(claims);
    assert_eq!(claims["aud"], "https://manage.office.com");
    assert_eq!(claims["tid"], tenant().id.to_string());
    assert_eq!(claims["appid"], tenant().client_id);
    assert_eq!(claims["roles"], serde_json::json!([]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 2);
    assert!(is_ok(&world.get("subscriptions/list").await));
    world.sim.control().advance(SignedDuration::from_secs(2));
    assert_eq!(world.get("subscriptions/list").await.status(), 401);
}

fn decode(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn s2_s5_an_assertion_is_believed_once_and_only_from_the_certificates_key() {
    let (certificate, key) = self_signed();
    let (stranger, _) = self_signed();
    let pem = String::from_utf8(certificate.to_pem().unwrap()).unwrap();
    let world = World::of(TenantScenario { certificate: Some(pem), ..tenant() }).await;
    let now = world.sim.now().as_second();
    let endpoint = format!("{}{}/oauth2/v2.0/token", world.sim.api_root(), tenant().id);
    let signed = |jti: &str, change: &dyn Fn(&mut Value, &mut Value)| {
        let thumbprint = |of: &X509| URL_SAFE_NO_PAD.encode(of.digest(MessageDigest::sha256()).unwrap());
        let mut header =
            json!({"typ": "JWT", "alg": "PS256", "x5t#S256": thumbprint(&certificate), "other": thumbprint(&stranger)});
        let id = &tenant().client_id;
        let mut claims = json!({"aud": endpoint, "iss": id, "sub": id, "jti": jti, "nbf": now - 60, "exp": now + 60});
        change(&mut header, &mut claims);
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
        let signature = signer.sign_oneshot_to_vec(text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let cut = |assertion: String| assertion[..assertion.len() - 8].to_owned() + "AAAAAAAA";
    let cases = [
        (signed("1", &|_, _| {}), 0),
        (signed("1", &|_, _| {}), 50_013),
        (cut(signed("2", &|_, _| {})), 700_027),
        (signed("3", &|header, _| header["x5t#S256"] = header["other"].clone()), 700_027),
        (signed("4", &|_, claims| claims["aud"] = json!("https://elsewhere.example/token")), 50_013),
        (signed("5", &|_, claims| claims["sub"] = json!("somebody else")), 50_013),
        (signed("6", &|_, claims| claims["exp"] = json!(now - 1)), 700_024),
        (signed("7", &|_, claims| claims["nbf"] = json!(now + 60)), 700_024),
        (signed("8", &|_, claims| claims["iss"] = json!("another issuer")), 70_021),
    ];
    for (assertion, number) in cases {
        asserted(&world, &assertion, JWT_BEARER, number).await;
    }
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Asks with this assertion, and expects this refusal; 0 for none.
async fn asserted(world: &World, assertion: &str, kind: &str, number: u64) {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &tenant().client_id),
        ("scope", "https://manage.office.com/.default"),
        ("client_assertion_type", kind),
        ("client_assertion", assertion),
    ];
    let (status, body) = ask(world, &tenant().id.to_string(), "/v2.0", &form).await;
    assert_eq!((status == 200, body["error_codes"][0].as_u64().unwrap_or(0)), (number == 0, number), "{body}");
    if number == 0 {
        let payload = body["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
        assert_eq!(decode(payload)["appidacr"], "2");
    }
}

#[tokio::test]
async fn s2_a_federated_token_is_compared_letter_by_letter() {
    let federation = Federation {
        issuer: "https://oidc.example/Cluster".to_owned(),
        subject: "system:serviceaccount:audit:feed".to_owned(),
    };
    let world = World::of(TenantScenario { federation: Some(federation.clone()), ..tenant() }).await;
    let other = |change: &dyn Fn(&mut Federation)| {
        let mut other = federation.clone();
        change(&mut other);
        other.token(world.sim.now() + SignedDuration::from_secs(60))
    };
    let lapsed = federation.token(world.sim.now());
    let saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
    let cases = [
        (other(&|_| {}), JWT_BEARER, 0),
        (other(&|_| {}), saml, 900_144),
        (lapsed, JWT_BEARER, 700_024),
        ("no.token.".to_owned(), JWT_BEARER, 50_027),
        (other(&|is| is.issuer.push('x')), JWT_BEARER, 700_211),
        (other(&|is| is.subject.push('x')), JWT_BEARER, 700_213),
        (other(&|is| is.issuer = is.issuer.to_lowercase()), JWT_BEARER, 7_002_138),
    ];
    for (assertion, kind, number) in cases {
        asserted(&world, &assertion, kind, number).await;
    }
}

#[tokio::test]
async fn s10_no_token_or_a_bad_one_is_denied_with_the_message_body() {
    let mut world = World::of(tenant()).await;
    let url = world.call(Method::GET, "subscriptions/list").build().unwrap().url().clone();
    world.token.push('x');
    let answers = [world.client.get(url).send().await.unwrap(), world.get("subscriptions/list").await];
    for answer in answers {
        assert_eq!((answer.status().as_u16(), header(&answer, "www-authenticate")), (401, "Bearer"));
        let body = answer.bytes().await.unwrap();
        assert_eq!(&body[..], br#"{"Message":"Authorization has been denied for this request."}"#);
        assert_eq!(body.len(), 61);
    }
}

#[tokio::test]
async fn s11_a_token_for_another_audience_is_denied_and_one_for_another_tenant_is_told_so() {
    let other = TenantScenario { id: TenantScenario::default().id, ..tenant() };
    let second = TenantScenario {
        id: crate::domain::TenantId("9a3c1f6e-5a0b-4d5e-9c7a-0c0a17e50009".parse().unwrap()),
        ..tenant()
    };
    let mut world = World::with(Scenario { tenants: vec![other, second.clone()], ..Scenario::default() }).await;
    world.token = world.token_for(&tenant(), "https://graph.microsoft.com").await;
    assert_eq!(world.get("subscriptions/list").await.status(), 401);
    world.token = world.token_for(&second, "https://manage.office.com").await;
    let (status, code, text) = refusal(world.get("subscriptions/list").await).await;
    assert_eq!((status, code.as_str()), (400, "AF20010"));
    assert!(text.contains(&second.id.to_string()));
}

#[tokio::test]
async fn s11_the_client_id_is_taken_for_the_tenant_when_the_scenario_says_so() {
    for (is_taken, expected) in [(true, 200), (false, 400)] {
        let world = World::of(TenantScenario { client_id_as_tenant: is_taken, ..tenant() }).await;
        let path = format!("api/v1.0/{}/activity/feed/subscriptions/list", tenant().client_id);
        let answer = world.follow(world.sim.api_root().join(&path).unwrap().as_str()).await;
        assert_eq!(answer.status(), expected);
    }
}

#[tokio::test]
async fn s12_a_missing_role_refuses_its_type_only() {
    let world = World::of(TenantScenario { roles: vec!["ActivityFeed.Read".to_owned()], ..tenant() }).await;
    let (status, code, _) = refusal(world.post("subscriptions/start?contentType=DLP.All").await).await;
    assert_eq!((status, code.as_str()), (401, "AF10001"));
    assert!(is_ok(&world.post("subscriptions/start?contentType=Audit.Exchange").await));
}

#[tokio::test]
async fn s4_a_token_is_refused_by_any_number_late_or_with_a_page() {
    let world = World::of(tenant()).await;
    let (id, known) = (tenant().id.to_string(), tenant());
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", known.client_id.as_str()),
        ("client_secret", known.client_secret.expose_secret()),
        ("scope", "https://manage.office.com/.default"),
    ];
    let set = |failure| {
        let rule = Rule { on: Some(Operation::Token), failure, when: When::Always };
        world.sim.control().set_faults(Faults { rules: vec![rule], ..Faults::default() });
    };
    let refusals = [
        (7_000_222, 401, "invalid_client"),
        (90_033, 400, "temporarily_unavailable"),
        (65_001, 400, "invalid_request"),
    ];
    for (number, status, error) in refusals {
        set(Failure::Code(number));
        let (found, body) = ask(&world, &id, "/v2.0", &form).await;
        assert_eq!(
            (found, body["error"].as_str(), &body["error_codes"][0]),
            (status, Some(error), &Value::from(number))
        );
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{number}: ")));
    }
    set(Failure::Slow(30));
    let asked = std::time::Instant::now();
    assert_eq!(ask(&world, &id, "/v2.0", &form).await.0, 200);
    assert!(asked.elapsed() >= Duration::from_millis(30), "it did not wait");
    set(Failure::Status(200));
    let url = world.sim.api_root().join(&format!("{id}/oauth2/v2.0/token")).unwrap();
    let page = world.client.post(url).form(&form).send().await.unwrap();
    assert!(header(&page, "content-type").starts_with("text/html"));
}

#[tokio::test]
async fn s3_claims_are_laid_over_those_of_a_token() {
    let claims = serde_json::json!({"aud": "https://graph.microsoft.com", "roles": null, "scp": "ActivityFeed.Read"});
    let Value::Object(claims) = claims else { panic!("an object") };
    let tenant = TenantScenario { claims, ..tenant() };
    let world = World::of(tenant.clone()).await;
    let token = world.token_for(&tenant, "https://manage.office.com").await;
    let payload = token.split('.').nth(1).unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
    let claims: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&claims["aud"], &claims["scp"]), (&"https://graph.microsoft.com".into(), &"ActivityFeed.Read".into()));
    assert_eq!((claims.get("roles"), claims["tid"].as_str()), (None, Some(&*tenant.id.to_string())));
}
