//! The node agent's Corefile: rendered from a template and the kube-dns ConfigMap, and watched for changes. See
//! README.md beside this file.

pub mod config;
pub mod render;
mod template;
pub(crate) mod watch;
mod write;

pub use template::Template;
pub(crate) use template::{Refresh, TemplateError};
pub(crate) use write::{CorefileOutput, WriteError};
