//! That the numbers are about a connector that did its work: every record due is there, once, as sent, and no gap is.

use std::collections::HashMap;

use o365feed::{domain::ContentType, simulator::half_hash};
use rdkafka::Message;
use serde_json::Value;

use crate::{producer::Sample, reader::for_each_committed, world::Simulation};

/// The halves of the hashes that a record's bytes may have, and how often it was seen.
struct Due {
    hashes: Vec<String>,
    seen: u32,
}

/// Reads all topics `read_committed` and compares them with what the simulator lists as due, which must be `due` records.
/// Some of what it reads it adds to the sample.
///
/// # Panics
/// When a record is missing, repeated, foreign or altered, or when there is a gap.
pub async fn all_there_once_as_sent(simulation: &Simulation, bootstrap: &str, due: u64, sample: &mut Sample) {
    let mut total = 0;
    for kind in ContentType::ALL {
        let mut truth = truth(simulation, kind).await;
        total += truth.len() as u64;
        let mut wanted = Sample::RECORDS;
        let topic = format!("o365.{}", kind.as_str().to_lowercase());
        for_each_committed(bootstrap, &[topic], |message| {
            let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
            let id = String::from_utf8_lossy(key);
            let record = truth.get_mut(id.as_ref()).unwrap_or_else(|| panic!("nobody sent {id}"));
            record.seen += 1;
            assert_eq!(record.seen, 1, "{id} is there more than once");
            assert!(record.hashes.contains(&hex(half_hash(value))), "{id} is not as it was sent");
            if wanted > 0 {
                sample.add(key, value);
                wanted -= 1;
            }
        });
        let missing = truth.values().filter(|record| record.seen == 0).count();
        assert_eq!(missing, 0, "records of {kind} are missing");
    }
    assert_eq!(total, due, "the simulator owes another number of records");
    for_each_committed(bootstrap, &["o365.feed.gaps".to_owned()], |gap| {
        panic!("there is a gap: {}", String::from_utf8_lossy(gap.payload().unwrap_or_default()));
    });
}

/// What is due of a type, by its `Id`.
async fn truth(simulation: &Simulation, kind: ContentType) -> HashMap<String, Due> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/truth/records?type={}", simulation.control_root, kind.as_str());
    let text = client.get(url).send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records: Vec<(String, Due)> = lines.map(record).collect();
    let count = records.len();
    let by_id: HashMap<String, Due> = records.into_iter().collect();
    assert_eq!(by_id.len(), count, "the simulator gave an Id twice");
    by_id
}

fn record(line: &[u8]) -> (String, Due) {
    let line: Value = serde_json::from_slice(line).unwrap();
    let hashes = line["sha256_half"].as_array().expect("hashes of every form");
    let hashes = hashes.iter().map(|hash| hash.as_str().expect("hex").to_owned()).collect();
    (line["key"].as_str().expect("every record has an Id").to_owned(), Due { hashes, seen: 0 })
}

fn hex(half: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(half))
}
