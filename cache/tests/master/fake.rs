//! A DynamoDB that does what the test says: answers, leaves keys unprocessed, throttles, fails, hangs.
//!
//! It has one table, `profiles`, with the string key `id`, and in it every item whose key does not begin with `no-`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

pub(crate) const TABLE: &str = "profiles";

/// What the next call of BatchGetItem gets. Once the steps are used up, calls are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Only so many keys, the rest is unprocessed.
    Process(usize),
    /// An error with this code.
    Refuse(StatusCode, &'static str),
    /// The answer, after a while.
    Slow(Duration),
    /// The answer, once the test says so.
    Hold,
}

/// The server. Dropping it stops it.
pub(crate) struct FakeDynamoDb {
    pub(crate) url: String,
    shared: Arc<Shared>,
    released: watch::Sender<bool>,
    _server: JoinSet<()>,
}

struct Shared {
    steps: Mutex<VecDeque<Step>>,
    /// The keys of each call of BatchGetItem.
    calls: Mutex<Vec<Vec<String>>>,
    describes: Mutex<usize>,
    version: Mutex<u64>,
    released: watch::Receiver<bool>,
    arrived: watch::Sender<usize>,
}

impl FakeDynamoDb {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (released, receiver) = watch::channel(false);
        let shared = Arc::new(Shared {
            steps: Mutex::default(),
            calls: Mutex::default(),
            describes: Mutex::default(),
            version: Mutex::new(1),
            released: receiver,
            arrived: watch::channel(0).0,
        });
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, released, _server: server }
    }

    pub(crate) fn client(&self) -> Client {
        client(&self.url)
    }

    /// What the next calls get, in this order.
    pub(crate) fn then(&self, steps: &[Step]) {
        self.shared.steps.lock().unwrap().extend(steps);
    }

    /// Answers what [`Step::Hold`] holds, now and from now on.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    /// Items have this version from now on.
    pub(crate) fn set_version(&self, version: u64) {
        *self.shared.version.lock().unwrap() = version;
    }

    /// The keys of each call so far.
    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        self.shared.calls.lock().unwrap().clone()
    }

    pub(crate) fn describes(&self) -> usize {
        *self.shared.describes.lock().unwrap()
    }

    /// Waits until so many calls of BatchGetItem have arrived in all.
    pub(crate) async fn until_calls(&self, calls: usize) {
        let mut arrived = self.shared.arrived.subscribe();
        let waiting = arrived.wait_for(|arrived| *arrived >= calls);
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the calls arrive").unwrap();
    }
}

/// A client without retries, as the code under test asks for.
pub(crate) fn client(url: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers["x-amz-target"].to_str().unwrap();
    let request: Value = serde_json::from_slice(&body).unwrap();
    match target.split_once('.').unwrap().1 {
        "DescribeTable" => {
            *shared.describes.lock().unwrap() += 1;
            describe(request["TableName"].as_str().unwrap())
        }
        "BatchGetItem" => batch_get_item(&shared, &request).await,
        other => panic!("{other} is not expected"),
    }
}

fn describe(table: &str) -> Response {
    if table != TABLE {
        return error(StatusCode::BAD_REQUEST, "ResourceNotFoundException");
    }
    json_response(&json!({ "Table": {
        "TableName": TABLE,
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
    }}))
}

async fn batch_get_item(shared: &Shared, request: &Value) -> Response {
    let asked = &request["RequestItems"][TABLE];
    assert_eq!(asked["ConsistentRead"], true, "{request}");
    let keys: Vec<String> = asked["Keys"].as_array().unwrap().iter().map(id).collect();
    assert!(keys.len() <= 100, "{} keys", keys.len());
    shared.calls.lock().unwrap().push(keys.clone());
    let step = shared.steps.lock().unwrap().pop_front();
    // What is read is what there is when the call arrives.
    let version = *shared.version.lock().unwrap();
    shared.arrived.send_modify(|arrived| *arrived += 1);
    let mut processed = keys.len();
    match step {
        Some(Step::Process(count)) => processed = count,
        Some(Step::Refuse(status, code)) => return error(status, code),
        Some(Step::Slow(delay)) => tokio::time::sleep(delay).await,
        Some(Step::Hold) => {
            shared.released.clone().wait_for(|released| *released).await.unwrap();
        }
        None => {}
    }
    if keys.iter().any(|key| key == "wrong") {
        return error(StatusCode::BAD_REQUEST, "ValidationException");
    }
    let (processed, unprocessed) = keys.split_at(processed.min(keys.len()));
    let items: Vec<Value> = processed
        .iter()
        .filter(|key| !key.starts_with("no-"))
        .map(|key| json!({ "id": { "S": key }, "version": { "N": version.to_string() }}))
        .collect();
    let mut answer = json!({
        "Responses": { TABLE: items },
        "UnprocessedKeys": {},
        "ConsumedCapacity": [{ "TableName": TABLE, "CapacityUnits": processed.len() }],
    });
    if !unprocessed.is_empty() {
        let keys: Vec<Value> = unprocessed.iter().map(|key| json!({ "id": { "S": key }})).collect();
        answer["UnprocessedKeys"] = json!({ TABLE: { "Keys": keys, "ConsistentRead": true }});
    }
    json_response(&answer)
}

fn id(key: &Value) -> String {
    key["id"]["S"].as_str().unwrap().to_owned()
}

fn json_response(body: &Value) -> Response {
    ([("content-type", "application/x-amz-json-1.0")], body.to_string()).into_response()
}

fn error(status: StatusCode, code: &str) -> Response {
    let body =
        json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "as scripted" });
    (status, json_response(&body)).into_response()
}
