//! Who waits, and who is next: a queue for each tenant, first come first served, and turns between the tenants.
//!
//! Deficit round robin (Shreedhar and Varghese 1995): a tenant whose turn it is gets a quantum and is served while its
//! deficit covers the cost of its first request. The quantum is at least the largest cost in the queue, so each turn serves
//! at least one request and finding the next takes O(1). It is the largest cost of a generation: when all who waited at
//! its beginning are gone, what only they needed is forgotten, so one giant does not make turns long for ever. A cost is the
//! share of the limits that a request uses, so a tenant with few large requests and one with many small ones get the same.
//!
//! Waiters of a tenant are a doubly linked list in a slab: to join, to be served and to leave from the middle are O(1).
//! Tenants are known only while they wait. Nothing here knows time, limits or wakers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

/// The place of a waiter.
pub(crate) type Ticket = usize;

#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiters: Slab<Waiter<T>>,
    tenants: Slab<Tenant>,
    by_name: HashMap<Arc<str>, usize>,
    /// Tenants in the order of their turns. One that has nobody waiting any more is taken out when its turn comes.
    turns: VecDeque<usize>,
    /// Whether the first tenant has had the quantum of its turn.
    paid: bool,
    quantum: u64,
    waiting: usize,
    generation: u64,
    /// How many of those who wait came before this generation.
    older: usize,
    /// The largest cost that came with this generation.
    largest: u64,
}

#[derive(Debug)]
struct Waiter<T> {
    /// `None` once it has been served; then it only keeps its value.
    place: Option<Place>,
    value: T,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    tenant: usize,
    before: Option<Ticket>,
    after: Option<Ticket>,
    cost: u64,
    generation: u64,
}

#[derive(Debug)]
struct Tenant {
    name: Arc<str>,
    first: Option<Ticket>,
    last: Option<Ticket>,
    deficit: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiters: Slab::new(),
            tenants: Slab::new(),
            by_name: HashMap::new(),
            turns: VecDeque::new(),
            paid: false,
            quantum: 0,
            waiting: 0,
            generation: 0,
            older: 0,
            largest: 0,
        }
    }

    /// How many wait, not counting those who have been served.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Joins the queue of a tenant.
    pub(crate) fn push(&mut self, tenant: &str, cost: u64, value: T) -> Ticket {
        let tenant = match self.by_name.get(tenant) {
            Some(known) => *known,
            None => {
                let name: Arc<str> = Arc::from(tenant);
                let place = self.tenants.insert(Tenant {
                    name: name.clone(),
                    first: None,
                    last: None,
                    deficit: 0,
                });
                self.by_name.insert(name, place);
                self.turns.push_back(place);
                place
            }
        };
        self.quantum = self.quantum.max(cost);
        self.largest = self.largest.max(cost);
        self.waiting += 1;
        let before = self.tenants[tenant].last;
        let ticket = self.waiters.insert(Waiter {
            place: Some(Place {
                tenant,
                before,
                after: None,
                cost,
                generation: self.generation,
            }),
            value,
        });
        match before.and_then(|before| self.waiters[before].place.as_mut()) {
            Some(place) => place.after = Some(ticket),
            None => self.tenants[tenant].first = Some(ticket),
        }
        self.tenants[tenant].last = Some(ticket);
        ticket
    }

    /// Who is next.
    pub(crate) fn next(&mut self) -> Option<Ticket> {
        loop {
            let place = *self.turns.front()?;
            let tenant = &mut self.tenants[place];
            let Some(first) = tenant.first else {
                // Nobody waits there any more: it leaves, and what was left of its turn with it.
                let gone = self.tenants.remove(place);
                self.by_name.remove(&gone.name);
                self.turns.pop_front();
                self.paid = false;
                continue;
            };
            if !self.paid {
                self.paid = true;
                tenant.deficit = tenant.deficit.saturating_add(self.quantum);
            }
            let cost = self.waiters[first].place.map_or(0, |place| place.cost);
            if tenant.deficit >= cost {
                return Some(first);
            }
            self.turns.rotate_left(1);
            self.paid = false;
        }
    }

    /// Serves who is [`next`](Self::next). It keeps its ticket until it is [removed](Self::remove).
    pub(crate) fn serve(&mut self, ticket: Ticket) {
        if let Some(place) = self.unlink(ticket) {
            let tenant = &mut self.tenants[place.tenant];
            tenant.deficit = tenant.deficit.saturating_sub(place.cost);
        }
    }

    /// Takes a waiter out, served or not.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.unlink(ticket);
        self.waiters.try_remove(ticket).map(|waiter| waiter.value)
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.waiters.get_mut(ticket).map(|waiter| &mut waiter.value)
    }

    fn unlink(&mut self, ticket: Ticket) -> Option<Place> {
        let place = self.waiters.get_mut(ticket)?.place.take()?;
        self.waiting -= 1;
        self.older -= usize::from(place.generation != self.generation);
        if self.older == 0 {
            // All who wait came with the generation that ends here.
            self.quantum = if self.waiting == 0 { 0 } else { self.largest };
            self.largest = 0;
            self.generation += 1;
            self.older = self.waiting;
        }
        match place
            .before
            .and_then(|before| self.waiters[before].place.as_mut())
        {
            Some(before) => before.after = place.after,
            None => self.tenants[place.tenant].first = place.after,
        }
        match place.after.and_then(|after| self.waiters[after].place.as_mut()) {
            Some(after) => after.before = place.before,
            None => self.tenants[place.tenant].last = place.before,
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn serve_all(queue: &mut Queue<&'static str>) -> String {
        let mut order = String::new();
        while let Some(ticket) = queue.next() {
            queue.serve(ticket);
            order.push_str(queue.remove(ticket).unwrap());
        }
        order
    }

    #[test]
    fn within_a_tenant_first_come_first_served_and_between_tenants_in_turn() {
        let mut queue = Queue::new();
        for name in ["1", "2", "3", "4"] {
            queue.push("a", 1, name);
        }
        queue.push("b", 1, "x");
        queue.push("b", 1, "y");
        assert_eq!(queue.waiting(), 6);
        assert_eq!(serve_all(&mut queue), "1x2y34");
        assert_eq!(
            (queue.waiting(), queue.by_name.len(), queue.tenants.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn large_requests_and_small_ones_get_the_same_share() {
        let mut queue = Queue::new();
        for _ in 0..3 {
            queue.push("large", 4, "L");
        }
        for _ in 0..12 {
            queue.push("small", 1, "s");
        }
        assert_eq!(serve_all(&mut queue), "LssssLssssLssss");
    }

    #[test]
    fn a_giant_is_forgotten_when_those_who_waited_with_it_are_gone() {
        let mut queue = Queue::new();
        queue.push("a", 1_000, "giant");
        let waiting = |queue: &mut Queue<&'static str>| {
            for (tenant, name) in [("a", "a"), ("b", "b")] {
                for _ in 0..8 {
                    queue.push(tenant, 1, name);
                }
            }
        };
        // Never empty: there is always somebody of an earlier round.
        for _ in 0..3 {
            waiting(&mut queue);
            for _ in 0..14 {
                let ticket = queue.next().unwrap();
                queue.serve(ticket);
                queue.remove(ticket);
            }
        }
        assert_eq!(queue.quantum, 1);
        let order = serve_all(&mut queue);
        assert!(!order.contains("aaa") || !order.contains("bbb"), "{order}");
        assert_eq!((queue.older, queue.waiting()), (0, 0));
    }

    #[test]
    fn who_leaves_from_the_middle_is_not_missed() {
        let mut queue = Queue::new();
        let tickets: Vec<Ticket> = ["1", "2", "3", "4"].map(|name| queue.push("a", 1, name)).to_vec();
        assert_eq!(queue.remove(tickets[1]), Some("2"));
        assert_eq!(queue.remove(tickets[3]), Some("4"));
        assert_eq!(queue.remove(tickets[3]), None);
        queue.push("a", 1, "5");
        assert_eq!(serve_all(&mut queue), "135");
    }

    proptest! {
        /// Against the plainest queue that can be written: each tenant's order is kept, nobody is lost, and of tenants
        /// that always wait none is ahead of another by more than two of the largest requests.
        #[test]
        fn order_and_shares(
            asks in proptest::collection::vec((0_usize..4, 1_u64..9), 1..200),
            leaves in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let names = ["a", "b", "c", "d"];
            let mut queue = Queue::new();
            let mut model: BTreeMap<usize, VecDeque<(Ticket, u64)>> = BTreeMap::new();
            let mut tickets = Vec::new();
            for (tenant, cost) in &asks {
                let ticket = queue.push(names[*tenant], *cost, (*tenant, *cost));
                model.entry(*tenant).or_default().push_back((ticket, *cost));
                tickets.push(ticket);
            }
            for leave in leaves {
                let ticket = *leave.get(&tickets);
                if let Some((tenant, _)) = queue.remove(ticket) {
                    let of_tenant = model.get_mut(&tenant).unwrap();
                    of_tenant.retain(|(known, _)| *known != ticket);
                }
            }
            model.retain(|_, waiting| !waiting.is_empty());
            let largest = asks.iter().map(|(_, cost)| *cost).max().unwrap();
            let mut served: BTreeMap<usize, u64> = model.keys().map(|tenant| (*tenant, 0)).collect();
            let everyone = model.len();
            while let Some(ticket) = queue.next() {
                prop_assert_eq!(queue.next(), Some(ticket), "looking changes nothing");
                queue.serve(ticket);
                let (tenant, cost) = queue.remove(ticket).unwrap();
                let expected = model.get_mut(&tenant).unwrap().pop_front().unwrap();
                prop_assert_eq!(expected.0, ticket);
                *served.get_mut(&tenant).unwrap() += cost;
                if model.values().filter(|waiting| !waiting.is_empty()).count() == everyone {
                    let most = served.values().max().unwrap();
                    let least = served.values().min().unwrap();
                    prop_assert!(most - least <= 3 * largest, "{served:?}");
                }
            }
            prop_assert!(model.values().all(VecDeque::is_empty));
            prop_assert_eq!(queue.waiting(), 0);
        }
    }
}
