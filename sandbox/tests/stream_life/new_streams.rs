//! A table's stream is disabled and another is enabled: a new generation, without a restart.

use std::collections::BTreeMap;

use crate::life::*;
use crate::master::TABLE;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_of_a_table_is_picked_up_and_the_old_one_is_read_to_its_end() {
    let mut life = Life::new().await;
    let shards = [life.add_shard(None), life.add_shard(None)];
    let keys = [keys("family-0", 3), keys("family-1", 3)];
    life.start_workers(2, Tuning::default());
    for (shard, keys) in shards.iter().zip(&keys) {
        life.put_each(shard, keys, 2);
    }
    life.arrivals().await;

    // All at once: what was put last into the old stream is read when the new one is there already. The sequence
    // numbers begin anew, so that only the generation tells the order.
    for (shard, keys) in shards.iter().zip(&keys) {
        life.put_each(shard, keys, 2);
    }
    life.fake().set_disabled(&life.arn).unwrap();
    let renewed = life.fake().create_stream(TABLE, None).unwrap();
    life.master.set_stream(&renewed);
    for keys in &keys {
        let shard = life.fake().add_shard(&renewed, None).unwrap();
        for key in keys {
            let sequences = life.fake().put(&renewed, &shard, &[change(key)]).unwrap();
            life.ledger.expect(key, 2, &sequences);
        }
    }

    // Looked for every 30 seconds.
    let arrivals = life.arrivals().await;
    life.assert_all_arrives_once().await;
    let mut newest = BTreeMap::new();
    for (key, position) in arrivals.0 {
        let highest = newest.entry(key).or_insert(position);
        *highest = position.max(*highest);
    }
    assert_eq!(newest.len(), 6);
    assert!(newest.values().all(|position| position.generation() == 2), "{newest:?}");
    assert_eq!(life.records_read(&renewed), 6);
    life.ended(&[&shards[0], &shards[1]]).await;

    // The service forgets the old stream in time, and so does the fleet.
    life.fake().delete_stream(&life.arn).unwrap();
    let forgotten = || async { life.master.leases(&life.arn).await.is_empty().then_some(()) };
    life.eventually("the old stream's leases go", forgotten).await;
    assert_eq!(life.master.gaps(&life.arn).await, []);
    assert_eq!(life.died(), None);
    life.stop().await;
}
