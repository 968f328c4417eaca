//! What `/readyz` says of a cache-writer that can, and of one that cannot do its part.

use warmcast_cache_writer::Config;

use super::endpoint::{Readiness, address};
use super::wait::until;
use super::world::{CacheWriter, World, now_ms};

const EVERYTHING_ELSE: [&str; 3] = ["fleet", "redis", "region"];

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_writer_that_could_not_take_over_is_not_ready_although_its_region_is_warm() {
    let world = World::new(1).await;
    let rights = async |words: &[&str]| {
        let mut admin = world.admin.clone();
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("cannot-load").arg(words);
        command.exec_async(&mut admin).await.unwrap();
    };
    rights(&["on", "nopass", "~*", "&*", "+@all", "-script"]).await;
    let start = |worker: &str, number: u8, change: &dyn Fn(&mut Config)| {
        let mut config = world.config();
        config.worker_id = worker.to_owned();
        config.admin.listen = Some(address(number));
        change(&mut config);
        CacheWriter::start(config)
    };
    world.set_watermark(now_ms()).await;
    let reads = start("w1", 0, &|_| ());
    until("the one that reads is ready", async || Readiness::of(address(0)).await.ready).await;

    let lacks_stream = start("w2", 1, &|config| config.kinesis.stream = "misspelt".to_owned());
    let lacks_scripts = start("w3", 2, &|config| config.redis.username = Some("cannot-load".to_owned()));
    for number in [1, 2] {
        let mut readiness = Readiness::default();
        until("everything else is well", async || {
            readiness = Readiness::of(address(number)).await;
            EVERYTHING_ELSE.iter().all(|name| readiness.met.iter().any(|met| met == name))
        })
        .await;
        let why = "the stream or the cache is not reached yet";
        assert_eq!(readiness.unmet, [("leases".to_owned(), why.to_owned())]);
        assert!(!readiness.ready);
    }
    world.kinesis.create_stream("misspelt", 1).await;
    rights(&["+script"]).await;
    for number in [1, 2] {
        until("it could take over", async || Readiness::of(address(number)).await.ready).await;
    }

    for writer in [lacks_stream, lacks_scripts, reads] {
        writer.stop().await;
    }
}
