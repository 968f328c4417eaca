//! The command line: what is written, what is said, and the exit codes.

use std::process::Output;

use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::Value;
use tokio::process::Command;

use super::application::Application;
use super::servers::DynamoDb;

/// A table whose stream has a shard, and an application that reads it.
struct World {
    dynamodb: DynamoDb,
    application: Application,
    config: tempfile::NamedTempFile,
}

impl World {
    async fn start() -> Self {
        let dynamodb = DynamoDb::start().await;
        dynamodb.create_table("profiles", StreamViewType::NewImage).await;
        let application = Application::of(&dynamodb).await;
        let config = application.config_file(&dynamodb.url);
        Self { dynamodb, application, config }
    }

    async fn import(&self, flags: &[&str]) -> Output {
        self.application.import(self.config.path(), flags).await
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn an_import_is_looked_at_done_repeated_and_refused_once_kcl_went_on() {
    let world = World::start().await;
    let (shard, client) = (world.application.shard.as_str(), &world.dynamodb.client);
    world.application.lease(shard, "500000000000000000001").await;

    let dry = world.import(&["--dry-run"]).await;
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    assert!(stdout(&dry).contains(&format!("import     {shard}  500000000000000000001 -> after:")));
    assert!(client.describe_table().table_name("state").send().await.is_err(), "a dry run writes nothing");

    let done = world.import(&["--output", "json"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let report: Value = serde_json::from_str(&stdout(&done)).unwrap();
    assert_eq!((&report["totals"]["imported"], &report["dry_run"]), (&1.into(), &false.into()));
    let expected = vec![(shard.to_owned(), "after:500000000000000000001".to_owned())];
    assert_eq!(world.dynamodb.checkpoints("profiles").await, expected);

    let again = world.import(&[]).await;
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert!(stdout(&again).contains(&format!("unchanged  {shard}")), "{}", stdout(&again));

    // KCL went on, so that the lease is not what an import would write.
    world.application.lease(shard, "500000000000000000002").await;
    let refused = world.import(&[]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(stdout(&refused).contains(&format!("conflict   {shard}")), "{}", stdout(&refused));
    assert!(stderr(&refused).contains("Nothing was written"), "{}", stderr(&refused));
    assert_eq!(world.dynamodb.checkpoints("profiles").await, expected);
}

#[tokio::test]
async fn a_lease_that_cannot_be_taken_over_makes_the_exit_code_1() {
    let world = World::start().await;
    world.application.lease(&world.application.shard, "AT_TIMESTAMP").await;
    let output = world.import(&[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).contains(&format!("skip       {}  AT_TIMESTAMP -> -", world.application.shard)));
    assert!(
        stdout(&output).contains("0 imported, 0 unchanged, 1 skipped, 1 problems"),
        "{}",
        stdout(&output)
    );
}

#[tokio::test]
async fn what_cannot_be_done_exits_with_2_and_what_was_asked_wrongly_with_64() {
    let world = World::start().await;
    world.application.lease("shardId-of-the-former-stream", "5").await;
    let other_stream = world.import(&[]).await;
    assert_eq!(other_stream.status.code(), Some(2));
    assert!(stderr(&other_stream).contains("disabled and enabled again"), "{}", stderr(&other_stream));
    let wrong: [(&[&str], i32, &str); 4] = [
        (&["--watch-ms", "0"], 64, "--watch-ms"),
        (&["--output", "xml"], 64, "[possible values: human, json]"),
        (&["--set", "batch.buckets=3"], 64, "batch.buckets: "),
        (&["--set", "dynamodb.access_key_id=5"], 64, "dynamodb.access_key_id: "),
    ];
    for (flags, code, said) in wrong {
        let output = world.import(flags).await;
        assert_eq!(output.status.code(), Some(code), "{flags:?}");
        assert!(stderr(&output).contains(said), "{flags:?}: {}", stderr(&output));
    }
    let mut other_table = Command::new(env!("CARGO_BIN_EXE_aggregator"));
    other_table.args(["import-kcl", "--table", "users", "--kcl-table", "consumer", "--config"]);
    let output = other_table.arg(world.config.path()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there is no [tables.users]"), "{}", stderr(&output));
}

#[tokio::test]
async fn the_help_has_examples() {
    let output = Command::new(env!("CARGO_BIN_EXE_aggregator")).args(["import-kcl", "--help"]).output().await;
    let output = output.unwrap();
    assert!(output.status.success());
    assert!(
        stdout(&output).contains("Examples:") && stdout(&output).contains("--dry-run"),
        "{}",
        stdout(&output)
    );
}
