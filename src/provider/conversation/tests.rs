use super::*;

const ANNA: PrincipalId = PrincipalId(1);
const BEN: PrincipalId = PrincipalId(2);

fn conversations(count: usize, bytes: usize) -> Arc<Conversations> {
    Arc::new(Conversations::new(ConversationBounds { count, bytes, age: Duration::from_secs(60) }))
}

fn partner() -> Partner {
    Partner { provider: Arc::from("p"), model: Arc::from("m"), system: None }
}

fn question(text: &str) -> Arc<Message> {
    Arc::new(Message::text(ChatRole::User, text))
}

fn open(all: &Conversations, text: &str) -> ContinuationId {
    let id = ContinuationId::mint();
    assert!(all.open(ANNA, id, partner(), question(text), "a"));
    id
}

fn said(all: &Conversations, id: ContinuationId) -> Vec<String> {
    all.find(ANNA, id).unwrap().said.iter().map(|message| message.text.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_its_principals_and_ends_with_its_age() {
    let all = conversations(9, 1 << 20);
    let id = open(&all, "q");
    assert_eq!(said(&all, id), ["q", "a"]);
    assert!(all.find(BEN, id).is_none());
    assert_eq!(all.begin(BEN, id, 1).unwrap_err(), NotAsked::Moved);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(all.find(ANNA, id).is_some(), "looking at it is using it");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(all.find(ANNA, id).is_none());
    assert_eq!(all.kept(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_call_at_a_time_goes_on_and_one_that_fails_has_said_nothing() {
    let all = conversations(9, 1 << 20);
    let id = open(&all, "q");
    let first = all.begin(ANNA, id, 1).unwrap();
    assert_eq!(all.begin(ANNA, id, 1).unwrap_err(), NotAsked::Busy);
    drop(first);
    let second = all.begin(ANNA, id, 1).unwrap();
    assert!(second.answered(partner(), question("r"), "b"));
    assert_eq!(all.begin(ANNA, id, 1).unwrap_err(), NotAsked::Moved);
    assert_eq!(said(&all, id), ["q", "a", "r", "b"]);
    assert!(all.begin(ANNA, id, 2).is_ok());
}

#[tokio::test(start_paused = true)]
async fn sharers_of_the_first_call_go_on_each_on_its_own() {
    let all = conversations(9, 1 << 20);
    let id = open(&all, "q");
    assert!(all.begin(ANNA, id, 1).unwrap().answered(partner(), question("r"), "b"));
    let (one, other) = (id.fork(1), id.fork(2));
    assert_eq!(
        (said(&all, one), said(&all, other)),
        (vec!["q".into(), "a".into()], vec!["q".into(), "a".into()])
    );
    assert!(all.begin(ANNA, one, 1).unwrap().answered(partner(), question("s"), "c"));
    assert_eq!(said(&all, one), ["q", "a", "s", "c"]);
    assert_eq!((said(&all, other).len(), said(&all, id)[2].as_str()), (2, "r"));
    assert!(all.find(BEN, one).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_one_that_was_not_used_for_longest_makes_room() {
    let all = conversations(2, 1 << 20);
    let [a, b] = ["a", "b"].map(|text| {
        let id = open(&all, text);
        all.find(ANNA, id);
        id
    });
    tokio::time::advance(Duration::from_secs(1)).await;
    all.find(ANNA, a);
    let c = open(&all, "c");
    assert!(all.find(ANNA, b).is_none() && all.find(ANNA, a).is_some() && all.find(ANNA, c).is_some());
    let speaking = [a, c].map(|id| all.begin(ANNA, id, 1).unwrap());
    assert!(!all.open(ANNA, ContinuationId::mint(), partner(), question("d"), "x"), "all are in use");
    drop(speaking);
}

#[tokio::test(start_paused = true)]
async fn a_principals_bytes_are_bounded() {
    let all = conversations(1000, 10_000);
    let big = "x".repeat(3000);
    let first = open(&all, &big);
    tokio::time::advance(Duration::from_millis(1)).await;
    for _ in 0..50 {
        open(&all, &big);
    }
    let (count, bytes) = all.kept();
    assert!(count <= 3 && bytes <= 10_000, "{count} {bytes}");
    assert!(all.find(ANNA, first).is_none());
    let id = open(&all, "small");
    let speaking = all.begin(ANNA, id, 1).unwrap();
    assert!(!speaking.answered(partner(), question(&"x".repeat(10_000)), "b"), "no room for it");
    assert!(all.find(ANNA, id).is_none());
    all.sweep();
    assert!(all.kept().1 <= 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_was_let_go_of_never_comes_back_shorter() {
    let all = conversations(2, 1 << 20);
    let id = open(&all, "q");
    let fork = id.fork(1);
    assert_eq!(said(&all, fork).len(), 2);
    assert!(all.begin(ANNA, fork, 1).unwrap().answered(partner(), question("r"), "b"));
    tokio::time::advance(Duration::from_secs(1)).await;
    all.find(ANNA, id);
    assert!(all.begin(ANNA, id, 1).unwrap().answered(partner(), question("r"), "b"));
    let other = open(&all, "o");
    assert!(all.find(ANNA, other).is_some() && all.find(ANNA, id).is_some());
    assert!(all.find(ANNA, fork).is_none(), "its second turn is lost, so all of it is");
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_kept_drives_no_other_out() {
    let all = conversations(9, 10_000);
    let id = open(&all, "small");
    let big = question(&"x".repeat(10_000));
    assert!(!all.open(ANNA, ContinuationId::mint(), partner(), big, "a"));
    assert!(all.find(ANNA, id).is_some());
}

#[tokio::test(start_paused = true)]
async fn guessed_forks_are_bounded() {
    let all = conversations(4, 1 << 20);
    let id = open(&all, "q");
    let made = (1..5000).filter(|random| all.find(ANNA, id.fork(*random)).is_some()).count();
    assert!(made <= MOST_FORKS && all.kept().0 <= 4, "{made}");
}
