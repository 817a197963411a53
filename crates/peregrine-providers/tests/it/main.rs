//! Integration tests of the providers.

mod openai_chat;
mod openai_chat_messages;
mod openai_chat_request;
mod openai_embed;
mod openai_responses;
mod openai_responses_request;
mod recordings;
mod schema;
mod support;
