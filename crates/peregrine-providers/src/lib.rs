//! Chat and embedding models over the wire.
//!
//! Two halves:
//!
//! - [`wire`]: sans-IO codecs, one module for each dialect. They turn requests into bytes and bytes into
//!   responses and events, and know no socket, no clock and no runtime.
//! - everything else moves those bytes, or wraps a model.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "offline")]
#[cfg_attr(docsrs, doc(cfg(feature = "offline")))]
pub mod offline;
pub mod wire;
