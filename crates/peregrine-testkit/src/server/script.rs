//! Which reply a request gets: the first queued one that fits, else the standing responder.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::ConnectionFault;
use super::reply::Reply;
use super::seen::{Endpoint, SeenRequest};

/// Which requests a queued reply is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Generation,
    Endpoint(Endpoint),
    Any,
}

impl For {
    fn fits(self, endpoint: Endpoint) -> bool {
        match self {
            Self::Generation => endpoint.is_generation(),
            Self::Endpoint(wanted) => endpoint == wanted,
            Self::Any => true,
        }
    }
}

type Call = dyn Fn(&SeenRequest) -> Reply + Send + Sync;

/// The standing responder.
#[derive(Clone, Default)]
pub(crate) enum Responder {
    #[default]
    Standard,
    Fixed(Arc<Reply>),
    Call(Arc<Call>),
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("Standard"),
            Self::Fixed(reply) => f.debug_tuple("Fixed").field(reply).finish(),
            Self::Call(_) => f.write_str("Call(..)"),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(For, Arc<Reply>)>,
    responder: Responder,
    connection_faults: VecDeque<ConnectionFault>,
    standing_connection_fault: Option<ConnectionFault>,
}

#[derive(Debug, Default)]
pub(crate) struct Script {
    state: Mutex<State>,
}

impl Script {
    pub(crate) fn push(&self, wanted: For, reply: Reply) {
        self.lock().queue.push_back((wanted, Arc::new(reply)));
    }

    pub(crate) fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    pub(crate) fn set_responder(&self, responder: Responder) {
        self.lock().responder = responder;
    }

    pub(crate) fn push_connection_fault(&self, fault: ConnectionFault) {
        self.lock().connection_faults.push_back(fault);
    }

    pub(crate) fn set_connection_fault(&self, fault: Option<ConnectionFault>) {
        self.lock().standing_connection_fault = fault;
    }

    pub(crate) fn take_connection_fault(&self) -> Option<ConnectionFault> {
        let mut state = self.lock();
        state
            .connection_faults
            .pop_front()
            .or(state.standing_connection_fault)
    }

    /// The standing reply, if it needs neither the request nor any work.
    pub(crate) fn floor(&self) -> Option<Arc<Reply>> {
        let state = self.lock();
        match &state.responder {
            Responder::Fixed(reply) if state.queue.is_empty() && reply.as_floor().is_some() => {
                Some(Arc::clone(reply))
            }
            _ => None,
        }
    }

    /// The reply to a request. The responder is called without the lock.
    pub(crate) fn reply(&self, request: &SeenRequest) -> Arc<Reply> {
        let responder = {
            let mut state = self.lock();
            let first = state
                .queue
                .iter()
                .position(|(wanted, _)| wanted.fits(request.endpoint));
            if let Some((_, reply)) = first.and_then(|index| state.queue.remove(index)) {
                return reply;
            }
            state.responder.clone()
        };
        match responder {
            Responder::Standard => Arc::new(Reply::standard()),
            Responder::Fixed(reply) => reply,
            Responder::Call(call) => Arc::new(call(request)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
