//! The node agent's Corefile: rendered from a template and the kube-dns ConfigMap, and watched for changes. See
//! README.md beside this file.

pub mod config;
pub mod render;
mod template;
pub(crate) mod watch;
mod write;

pub(crate) use template::CorefileTemplate;
pub(crate) use template::{CorefileTemplateError, Refresh};
pub(crate) use write::{CorefileOutput, WriteError};
