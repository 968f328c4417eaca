use super::super::lease::KclCheckpoint;
use super::*;

const ADAPTER: &str = "123456789012:us-east-1$123456789012$profiles$2024-02-03T11_22_33.456:1";
const ARN: &str = "arn:aws:dynamodb:us-east-1:123456789012:table/profiles/stream/2024-02-03T11:22:33.456";

fn stream(text: &str) -> KclStream {
    KclStream::parse(text).unwrap()
}

fn lease(of: Option<&str>, shard: &str) -> KclLease {
    KclLease {
        stream: of.map(stream),
        shard: shard.to_owned(),
        parents: Vec::new(),
        owner: None,
        counter: 0,
        checkpoint: KclCheckpoint::TrimHorizon,
    }
}

#[test]
fn an_identifier_has_three_parts_of_their_kinds() {
    assert_eq!(stream("12:clicks:1700000000").to_string(), "12:clicks:1700000000");
    for wrong in ["", "clicks", "12:clicks", "12::1", ":clicks:1", "x:clicks:1", "12:clicks:x", "1:2:3:4"] {
        assert_eq!(KclStream::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn a_dynamodb_stream_is_told_by_its_table_and_its_label() {
    let adapter = stream(ADAPTER);
    assert_eq!(adapter.sameness(ARN), Sameness::Same);
    assert_eq!(adapter.sameness(&ARN.replace("11:22", "11:23")), Sameness::Other, "enabled again");
    assert_eq!(adapter.sameness(&ARN.replace("profiles", "profiles2")), Sameness::Other);
    assert_eq!(adapter.sameness(&ARN.replace("us-east-1", "eu-west-1")), Sameness::Other);
}

#[test]
fn a_kinesis_stream_is_told_by_its_name_and_the_time_of_its_creation() {
    let ours = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks@1700000000";
    assert_eq!(stream("123456789012:clicks:1700000000").sameness(ours), Sameness::Same);
    assert_eq!(stream("123456789012:clicks:1").sameness(ours), Sameness::OtherEpoch);
    assert_eq!(stream("123456789012:licks:1700000000").sameness(ours), Sameness::Other);
    assert_eq!(stream("123456789013:clicks:1700000000").sameness(ours), Sameness::Other);
}

#[test]
fn the_only_stream_is_selected_whether_it_has_a_name_or_not() {
    for only in [None, Some("1:a:5")] {
        let leases = vec![lease(only, "x"), lease(only, "y")];
        assert_eq!(select(leases.clone(), None).unwrap(), (only.map(stream), leases));
    }
}

#[test]
fn one_of_several_streams_is_selected_by_any_of_its_names() {
    let leases = || vec![lease(Some("1:a:5"), "x"), lease(Some(ADAPTER), "y"), lease(Some("1:b:5"), "z")];
    let several = select(leases(), None).unwrap_err().to_string();
    assert!(several.ends_with(&format!("1:a:5, 1:b:5, {ADAPTER}")), "{several}");
    for (wanted, shard) in [("a", "x"), ("1:b:5", "z"), ("profiles", "y"), (ADAPTER, "y")] {
        let (found, leases) = select(leases(), Some(wanted)).unwrap();
        assert_eq!((leases[0].shard.as_str(), leases.len()), (shard, 1), "{wanted}");
        assert!(found.is_some());
    }
    let none = select(leases(), Some("c")).unwrap_err();
    assert!(matches!(&none, SelectError::NoSuch { streams, .. } if streams.len() == 3), "{none}");
}

#[test]
fn a_name_that_several_streams_have_selects_none_of_them() {
    let leases = vec![lease(Some("1:a:5"), "x"), lease(Some("1:a:9"), "x")];
    let several = select(leases.clone(), Some("a")).unwrap_err();
    assert_eq!(several, SelectError::Several { streams: vec!["1:a:5".to_owned(), "1:a:9".to_owned()] });
    assert_eq!(select(leases, Some("1:a:9")).unwrap().0, Some(stream("1:a:9")));
}

#[test]
fn a_name_is_of_no_use_where_the_table_has_none() {
    let unnamed = select(vec![lease(None, "x")], Some("a")).unwrap_err();
    assert_eq!(unnamed, SelectError::Unnamed { wanted: "a".to_owned() });
    let mixed = select(vec![lease(None, "x"), lease(Some("1:a:5"), "y")], None).unwrap_err();
    assert!(matches!(mixed, SelectError::Several { .. }), "{mixed}");
}
