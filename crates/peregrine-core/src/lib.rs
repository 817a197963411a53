//! The vocabulary of the Peregrine agent runtime: messages, requests, stream events, usage, money, errors and the model traits
