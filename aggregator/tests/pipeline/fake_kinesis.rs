//! A Kinesis that follows a script: each PutRecords call gets the next answer of it, and success when it is at its
//! end. What it took is kept. Its shards have equal shares of the hash keys, may take so many records a second only,
//! and may be others from one moment to the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// More calls than any test makes.
const OPEN: usize = 1 << 20;

/// How a call is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Every entry is taken, except these, which get the error code.
    Entries(Vec<(usize, &'static str)>),
    /// The whole call fails with this status and code.
    Fails(u16, &'static str),
    /// Nothing, or something that is no answer of Kinesis.
    Garbage,
    /// All entries are taken and one answer too few is given.
    OneTooFew,
}

/// The server. Dropping it stops it.
pub(crate) struct FakeKinesis {
    pub(crate) url: String,
    seen: Arc<Shared>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    script: VecDeque<Answer>,
    calls: Vec<Vec<Bytes>>,
    landed: Vec<Bytes>,
    in_flight: usize,
    in_flight_max: usize,
    poison: Option<Bytes>,
    stream_is_missing: bool,
    is_no_kinesis: bool,
    shards: usize,
    /// The number of the first open shard.
    first_shard: u128,
    limits: BTreeMap<u128, Limit>,
    sent_to: BTreeMap<u128, SentTo>,
    connections: BTreeSet<SocketAddr>,
    distribution: Option<&'static str>,
    is_on_demand: bool,
}

/// What was sent to one shard, by when it came.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct SentTo {
    pub(crate) taken: usize,
    pub(crate) throttled: usize,
}

/// A shard's token bucket, of one second's records.
struct Limit {
    records_per_second: f64,
    records: f64,
    filled: Instant,
}

impl Limit {
    fn takes(&mut self) -> bool {
        let now = Instant::now();
        let records = self.records + (now - self.filled).as_secs_f64() * self.records_per_second;
        (self.records, self.filled) = (records.min(self.records_per_second), now);
        let takes = self.records >= 1.0;
        self.records -= if takes { 1.0 } else { 0.0 };
        takes
    }
}

/// An entry of a call.
struct Entry {
    data: Bytes,
    hash_key: u128,
}

struct Shared {
    seen: Mutex<Seen>,
    /// A call is answered when there is a permit for it.
    gate: Semaphore,
}

impl FakeKinesis {
    /// Answers by this script, at once.
    pub(crate) async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        Self::serve(script, TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// The same behind this listener.
    pub(crate) fn serve(script: impl IntoIterator<Item = Answer>, listener: TcpListener) -> Self {
        let seen = Seen { script: script.into_iter().collect(), shards: 1, ..Seen::default() };
        let shared = Arc::new(Shared { seen: Mutex::new(seen), gate: Semaphore::new(OPEN) });
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Calls of up to 5 MiB, in base64.
        let limit = axum::extract::DefaultBodyLimit::max(16 << 20);
        let app = Router::new().route("/", post(answer)).layer(limit).with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen: shared, _server: server }
    }

    /// Stops answering PutRecords.
    pub(crate) fn hold(&self) {
        self.seen.gate.forget_permits(usize::MAX);
    }

    /// Answers again.
    pub(crate) fn release(&self) {
        self.seen.gate.add_permits(OPEN);
    }

    /// Refuses every call that has this data in it.
    pub(crate) fn refuse(&self, poison: Bytes) {
        self.seen.seen.lock().unwrap().poison = Some(poison);
    }

    /// Whether there is a stream.
    pub(crate) fn stream_is_missing(&self, is_missing: bool) {
        self.seen.seen.lock().unwrap().stream_is_missing = is_missing;
    }

    /// How many open shards the stream has.
    pub(crate) fn has_shards(&self, shards: usize) {
        self.seen.seen.lock().unwrap().shards = shards;
    }

    /// How many records a second this shard takes; `None`: any.
    pub(crate) fn limit_shard(&self, shard: u128, records_per_second: Option<f64>) {
        let limits = &mut self.seen.seen.lock().unwrap().limits;
        match records_per_second {
            Some(rate) => {
                let limit = Limit { records_per_second: rate, records: rate, filled: Instant::now() };
                limits.insert(shard, limit);
            }
            None => drop(limits.remove(&shard)),
        }
    }

    /// Closes all shards and opens so many new ones.
    pub(crate) fn reshard(&self, shards: usize) {
        let mut seen = self.seen.seen.lock().unwrap();
        seen.first_shard += seen.shards as u128;
        seen.shards = shards;
    }

    /// From now on this shard takes all.
    pub(crate) fn opens_shard(&self, shard: u128) {
        self.seen.seen.lock().unwrap().first_shard = shard;
    }

    /// What the stream says of how it distributes records.
    pub(crate) fn says_distribution(&self, distribution: &'static str) {
        self.seen.seen.lock().unwrap().distribution = Some(distribution);
    }

    /// The stream's mode: provisioned, unless it is this.
    pub(crate) fn is_on_demand(&self) {
        self.seen.seen.lock().unwrap().is_on_demand = true;
    }

    /// What was sent to a shard so far.
    pub(crate) fn sent_to(&self, shard: u128) -> SentTo {
        self.seen.seen.lock().unwrap().sent_to.get(&shard).copied().unwrap_or_default()
    }

    /// How many connections calls came over.
    pub(crate) fn connections(&self) -> usize {
        self.seen.seen.lock().unwrap().connections.len()
    }

    /// Whether it is another service than Kinesis.
    pub(crate) fn is_no_kinesis(&self, is_none: bool) {
        self.seen.seen.lock().unwrap().is_no_kinesis = is_none;
    }

    /// The data of each PutRecords call that came.
    pub(crate) fn calls(&self) -> Vec<Vec<Bytes>> {
        self.seen.seen.lock().unwrap().calls.clone()
    }

    /// The data that was taken.
    pub(crate) fn landed(&self) -> Vec<Bytes> {
        self.seen.seen.lock().unwrap().landed.clone()
    }

    /// The most PutRecords calls that were unanswered at a time.
    pub(crate) fn in_flight_max(&self) -> usize {
        self.seen.seen.lock().unwrap().in_flight_max
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let operation = headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
    if operation != "PutRecords" {
        let seen = shared.seen.lock().unwrap();
        return refusal_of_any_call(&seen).unwrap_or_else(|| match operation.as_str() {
            "DescribeStreamSummary" => summary(&seen),
            "ListShards" => listing(&seen),
            other => panic!("unexpected {other}"),
        });
    }
    let is_cbor = headers["content-type"] == "application/x-amz-cbor-1.1";
    let entries = if is_cbor { cbor_entries(&body) } else { entries(&body) };
    {
        let mut seen = shared.seen.lock().unwrap();
        seen.calls.push(entries.iter().map(|entry| entry.data.clone()).collect());
        seen.connections.insert(peer);
        seen.in_flight += 1;
        seen.in_flight_max = seen.in_flight_max.max(seen.in_flight);
    }
    shared.gate.acquire().await.unwrap().forget();
    let mut seen = shared.seen.lock().unwrap();
    seen.in_flight -= 1;
    put(&mut seen, entries)
}

fn put(seen: &mut Seen, entries: Vec<Entry>) -> Response {
    if let Some(refusal) = refusal_of_any_call(seen) {
        return refusal;
    }
    if seen.poison.as_ref().is_some_and(|poison| entries.iter().any(|entry| entry.data == *poison)) {
        return error(400, "ValidationException");
    }
    match seen.script.pop_front().unwrap_or(Answer::Entries(Vec::new())) {
        Answer::Entries(failed) => {
            let (mut results, mut failures) = (Vec::new(), 0);
            for (index, entry) in entries.into_iter().enumerate() {
                let shard = seen.first_shard + entry.hash_key / share(seen.shards);
                let by_script = failed.iter().find(|(at, _)| *at == index).map(|(_, code)| *code);
                let is_taken = by_script.is_none() && seen.limits.get_mut(&shard).is_none_or(Limit::takes);
                let sent_to = seen.sent_to.entry(shard).or_default();
                if is_taken {
                    sent_to.taken += 1;
                    seen.landed.push(entry.data);
                    results.push(json!({ "SequenceNumber": "1", "ShardId": shard_id(shard) }));
                } else {
                    sent_to.throttled += 1;
                    failures += 1;
                    let code = by_script.unwrap_or("ProvisionedThroughputExceededException");
                    let message = format!("Rate exceeded for shard {} in stream warmcast", shard_id(shard));
                    results.push(json!({ "ErrorCode": code, "ErrorMessage": message }));
                }
            }
            json_response(200, &json!({ "FailedRecordCount": failures, "Records": results }))
        }
        Answer::Fails(status, code) => error(status, code),
        Answer::Garbage => (StatusCode::BAD_GATEWAY, "<html>").into_response(),
        Answer::OneTooFew => {
            let taken = json!({ "SequenceNumber": "1", "ShardId": shard_id(seen.first_shard) });
            let results = vec![taken; entries.len() - 1];
            seen.landed.extend(entries.into_iter().map(|entry| entry.data));
            json_response(200, &json!({ "FailedRecordCount": 0, "Records": results }))
        }
    }
}

fn refusal_of_any_call(seen: &Seen) -> Option<Response> {
    if seen.is_no_kinesis {
        return Some(error(400, "UnknownOperationException"));
    }
    seen.stream_is_missing.then(|| error(400, "ResourceNotFoundException"))
}

/// It is answered in JSON all the same, which a client has to bear with.
fn cbor_entries(body: &[u8]) -> Vec<Entry> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Put {
        records: Vec<Record>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Record {
        data: ciborium::Value,
        explicit_hash_key: String,
    }
    let put: Put = ciborium::from_reader(body).unwrap();
    let entry = |record: Record| Entry {
        data: record.data.into_bytes().unwrap().into(),
        hash_key: record.explicit_hash_key.parse().unwrap(),
    };
    put.records.into_iter().map(entry).collect()
}

fn entries(body: &[u8]) -> Vec<Entry> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let records = body["Records"].as_array().unwrap();
    records
        .iter()
        .map(|record| Entry {
            data: BASE64_STANDARD.decode(record["Data"].as_str().unwrap()).unwrap().into(),
            hash_key: record["ExplicitHashKey"].as_str().unwrap().parse().unwrap(),
        })
        .collect()
}

/// The hash keys of one shard; of a stream with one shard it lacks the last, so that it is a number.
fn share(shards: usize) -> u128 {
    (u128::MAX / shards as u128).saturating_add(1)
}

fn shard_id(number: u128) -> String {
    format!("shardId-{number:012}")
}

fn listing(seen: &Seen) -> Response {
    let shards = seen.shards;
    let shard = |number: u128| {
        let first = number * share(shards);
        let last = first.saturating_add(share(shards) - 1);
        json!({
            "ShardId": shard_id(seen.first_shard + number),
            "HashKeyRange": { "StartingHashKey": first.to_string(), "EndingHashKey": last.to_string() },
            "SequenceNumberRange": { "StartingSequenceNumber": "1" },
        })
    };
    json_response(200, &json!({ "Shards": (0..shards as u128).map(shard).collect::<Vec<_>>() }))
}

fn summary(seen: &Seen) -> Response {
    let mut summary = json!({
        "StreamName": "warmcast", "StreamARN": "arn", "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1.0, "EnhancedMonitoring": [], "OpenShardCount": 1,
    });
    if seen.is_on_demand {
        summary["StreamModeDetails"] = json!({ "StreamMode": "ON_DEMAND" });
    }
    if let Some(distribution) = seen.distribution {
        summary["RecordDistributionStrategy"] = distribution.into();
    }
    json_response(200, &json!({ "StreamDescriptionSummary": summary }))
}

fn error(status: u16, code: &str) -> Response {
    json_response(status, &json!({ "__type": code, "message": "by the script" }))
}

fn json_response(status: u16, body: &Value) -> Response {
    let headers = [("content-type", "application/x-amz-json-1.1")];
    (StatusCode::from_u16(status).unwrap(), headers, body.to_string()).into_response()
}
