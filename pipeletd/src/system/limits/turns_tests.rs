use std::{
    pin::Pin,
    task::{Context, Waker},
};

use tokio::time::advance;

use super::*;

/// A connection that has asked for its turn.
struct Asked {
    pending: Arc<Pending>,
    turn: Pin<Box<dyn Future<Output = ()>>>,
}

impl Asked {
    fn new(turns: &Turns, from: u8) -> Self {
        let pending = Arc::new(turns.arrive(IpAddr::from([10, 0, 0, from])));
        let asking = Arc::clone(&pending);
        let turn = Box::pin(async move { asking.turn().await });
        let mut asked = Self { pending, turn };
        asked.poll();
        asked
    }

    fn poll(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        if self.turn.as_mut().poll(&mut context).is_ready() {
            self.turn = Box::pin(std::future::pending());
        }
    }

    /// It has its turn, and was not dropped.
    fn is_served(&mut self) -> bool {
        self.poll();
        let state = self.pending.turns.state();
        let (address, number) = self.pending.key;
        let share = state.holding.of.get(&address);
        share.is_some_and(|share| share.contains_key(&number))
    }
}

fn ask(turns: &Turns, from: u8, count: usize) -> Vec<Asked> {
    (0..count).map(|_| Asked::new(turns, from)).collect()
}

fn served(asked: &mut [Asked]) -> usize {
    asked
        .iter_mut()
        .filter_map(|one| one.is_served().then_some(()))
        .count()
}

fn dropped(asked: &[Asked]) -> usize {
    let is_dropped = |one: &&Asked| one.pending.dropped.is_cancelled();
    asked.iter().filter(is_dropped).count()
}

#[tokio::test(start_paused = true)]
async fn other_addresses_get_in_whatever_one_of_them_does() {
    let turns = Turns::new(8);
    let mut flood = ask(&turns, 1, 100);
    assert_eq!((served(&mut flood), dropped(&flood)), (8, 0));
    let mut second = ask(&turns, 2, 3);
    let mut third = ask(&turns, 3, 1);
    assert_eq!((served(&mut second), served(&mut third)), (3, 1));
    // The oldest went.
    assert_eq!((dropped(&flood), dropped(&flood[..4])), (4, 4));
    // And one that takes all it can get has its share.
    let mut fourth = ask(&turns, 4, 50);
    let shares = [&mut flood, &mut second, &mut third, &mut fourth].map(|of| served(of));
    assert_eq!(shares, [3, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn addresses_that_wait_are_served_in_rotation() {
    let turns = Turns::new(4);
    let (mut first, mut second) = (ask(&turns, 1, 2), ask(&turns, 2, 2));
    let (mut many, mut few) = (ask(&turns, 1, 50), ask(&turns, 2, 2));
    assert_eq!((served(&mut many), served(&mut few)), (0, 0));
    first.clear();
    second.clear();
    assert_eq!((served(&mut many), served(&mut few)), (2, 2));
    // Who no longer waits is passed over.
    many.drain(2..49);
    drop(few);
    assert_eq!(served(&mut many), 3);
    drop(many);
    assert_eq!(turns.state().free, 4);
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_sure_for_a_while() {
    let turns = Turns::new(1);
    let mut slow = ask(&turns, 2, 1);
    let mut next = ask(&turns, 1, 1);
    advance(SURE / 2).await;
    assert_eq!((served(&mut slow), served(&mut next)), (1, 0));
    advance(SURE / 2).await;
    assert_eq!((served(&mut next), served(&mut slow)), (1, 0));
    assert_eq!(dropped(&slow), 1);
    // A crowd of slow ones at one address would drop each other for ever.
    let mut own = ask(&turns, 1, 1);
    advance(LONGEST / 2).await;
    assert_eq!((served(&mut own), served(&mut next)), (0, 1));
    // But none that takes longer than a handshake may keeps its address out.
    advance(LONGEST / 2).await;
    assert_eq!((served(&mut own), dropped(&next)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_is_known_is_not_dropped() {
    let turns = Turns::new(2);
    let known = ask(&turns, 1, 2);
    assert!(known.iter().all(|one| one.pending.settle()));
    let mut others = ask(&turns, 2, 1);
    advance(SURE * 2).await;
    turns.drop_one();
    assert_eq!(
        (dropped(&known), served(&mut others), dropped(&others)),
        (0, 0, 1)
    );
    assert!(!others[0].pending.settle());
    let mut next = ask(&turns, 2, 1);
    drop(known);
    assert_eq!(served(&mut next), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_room_lets_go_of_the_oldest_of_most() {
    let turns = Turns::new(1);
    let room = Arc::new(Semaphore::new(3));
    let mut places = Vec::new();
    for _ in 0..3 {
        places.push(turns.place(&room).await.unwrap());
    }
    let (many, one) = (ask(&turns, 1, 2), ask(&turns, 2, 1));
    let mut newcomer = Box::pin(turns.place(&room));
    let mut context = Context::from_waker(Waker::noop());
    assert!(newcomer.as_mut().poll(&mut context).is_pending());
    assert_eq!(
        (dropped(&many[..1]), dropped(&many), dropped(&one)),
        (1, 1, 0)
    );
    places.pop();
    assert!(newcomer.await.is_some());
    // Of a /64, all are one.
    let [a, b] = ["2001:db8::1", "2001:db8::2"].map(|ip| turns.arrive(ip.parse().unwrap()));
    assert_eq!(a.key.0, b.key.0);
}
