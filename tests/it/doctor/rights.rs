//! Probes 4 to 7, and the command `token`, which tells no token.

use jiff::Timestamp;
use o365feed::simulator::{Failure, Operation, Scenario};
use serde_json::{Value, json};

use super::{but, discreet, expect, failing, healthy, json_of, probe, told, well, world};

#[test]
fn every_refusal_of_a_token_is_told_with_its_number_and_advice() {
    let world = world(healthy());
    let passing = [50_033, 90_006, 90_012, 90_024, 90_033, 90_090];
    let permanent = [
        90_002, 900_023, 700_016, 70_001, 700_011, 7_000_112, 1_000_031, 7_000_215, 7_000_222, 70_002, 700_027, 50_012,
        50_013, 700_030, 500_133, 700_024, 7_000_218, 700_025, 900_144, 70_021, 700_211, 700_212, 700_213, 7_002_138,
        500_011, 50_001, 650_052, 500_014, 65_001, 650_056, 650_057, 90_094, 53_003, 530_032, 530_035, 900_382,
        900_432, 90_038, 70_011, 700_022, 901_002,
    ];
    let throttled = [90_055, 50_196];
    for number in permanent.into_iter().chain(passing).chain(throttled) {
        failing(&world, Operation::Token, Failure::Code(number));
        let ran = world.tool(&["token", "--output", "json"]);
        let is_permanent = permanent.contains(&number);
        assert_eq!(ran.code, if is_permanent { 3 } else { 1 }, "{number}: {}", ran.stderr);
        let row = &json_of(&ran)[0];
        assert_eq!(row["code"], format!("AADSTS{number}"));
        assert_eq!(row["advice"].is_string(), !passing.contains(&number), "{row}");
        assert_eq!(row["claims"], Value::Null);
    }
    let refused = but(&[(4, "failure")], 5..=24);
    for number in [7_000_222, 90_055, 50_033] {
        failing(&world, Operation::Token, Failure::Code(number));
        let report = expect("no token", &world, &[], &refused);
        assert!(told(&report, 4).contains(&format!("AADSTS{number}")), "{}", told(&report, 4));
        assert_eq!(probe(&report, 4)["advice"].as_array().unwrap().len(), 1);
    }
    failing(&world, Operation::Token, Failure::Code(500_014));
    let no_licence = but(&[(4, "failure"), (9, "failure")], (5..=8).chain(10..=24));
    expect("no licence", &world, &[], &no_licence);
    for failure in [Failure::Status(503), Failure::Status(200), Failure::Reset] {
        failing(&world, Operation::Token, failure);
        expect("a page in the place of a token", &world, &[], &refused);
    }
    failing(&world, Operation::Token, Failure::Slow(1_500));
    expect("a slow token", &world, &[], &well());
}

#[test]
fn a_token_is_told_by_its_claims_and_never_itself() {
    let world = world(healthy());
    let ran = world.tool(&["token", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    discreet(&ran);
    let claims = &json_of(&ran)[0]["claims"];
    assert_eq!(claims["audience"], "https://manage.office.com");
    assert_eq!(claims["tenant"], world.tenant().to_string());
    assert_eq!(claims["roles"], json!(["ActivityFeed.Read", "ActivityFeed.ReadDlp"]));
    assert!(claims["expires"].as_str().unwrap().parse::<Timestamp>().unwrap() > Timestamp::now());
    let ran = world.tool(&["token", "--tenant", "contoso"]);
    discreet(&ran);
    assert!(ran.stdout.contains("contoso") && ran.stdout.contains("(in 59m)"), "{}", ran.stdout);
    let ran = world.tool(&["token", "--tenant", "fabrikam"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

fn with_claims(claims: Value) -> Scenario {
    let mut scenario = healthy();
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    scenario.tenants[0].claims = claims;
    scenario
}

#[test]
fn claims_that_are_anothers_end_the_branch_and_absent_ones_do_not() {
    let past = Timestamp::now().as_second() - 60;
    let another = [
        json!({"aud": "https://graph.microsoft.com"}),
        json!({"tid": "00000000-5a0b-4d5e-9c7a-0c0a17e5ffff"}),
        json!({"appid": "00000000-5a0b-4d5e-9c7a-0c0a17e5ffff"}),
    ];
    for claims in another {
        let world = world(with_claims(claims.clone()));
        let report = expect(&claims.to_string(), &world, &[], &but(&[(5, "failure")], 6..=24));
        assert_eq!(probe(&report, 5)["advice"].as_array().unwrap().len(), 1, "{}", told(&report, 5));
    }
    for claims in [json!({"exp": past}), json!({"nbf": past + 7_200})] {
        expect("not good now", &world(with_claims(claims)), &[], &but(&[(5, "warning")], []));
    }
    expect("no tid", &world(with_claims(json!({"tid": null}))), &[], &but(&[(5, "note")], []));
}

#[test]
fn a_missing_role_costs_only_the_types_that_need_it() {
    let roles = |roles: &[&str]| {
        let mut scenario = healthy();
        scenario.tenants[0].roles = roles.iter().map(|role| (*role).to_owned()).collect();
        world(scenario)
    };
    let report = expect("no role", &roles(&[]), &[], &but(&[(6, "failure"), (7, "failure")], 8..=24));
    assert!(told(&report, 6).contains("application permissions: add ActivityFeed.Read"), "{}", told(&report, 6));
    let report = expect("no DLP", &roles(&["ActivityFeed.Read"]), &[], &but(&[(7, "failure")], []));
    assert!(!told(&report, 15).contains("DLP.All") && told(&report, 15).contains("Audit.Exchange"));
    let only_dlp = but(&[(6, "failure")], [21]);
    expect("only DLP", &roles(&["ActivityFeed.ReadDlp"]), &[], &only_dlp);
    let scp = json!({"scp": "ActivityFeed.Read", "roles": null});
    let report = expect("delegated", &world(with_claims(scp)), &[], &but(&[(6, "failure"), (7, "failure")], 8..=24));
    assert!(told(&report, 6).contains("not delegated"), "{}", told(&report, 6));
    expect("only one type", &world(healthy()), &["--type", "Audit.Exchange"], &but(&[], [7]));
}
