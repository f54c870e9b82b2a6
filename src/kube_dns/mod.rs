//! The node agent's Corefile: rendered from a template and the kube-dns ConfigMap, and watched for changes. See
//! README.md beside this file.

pub mod config;
pub mod render;
mod template;
pub mod watch;
mod write;

pub use template::{Refresh, Template, TemplateError};
pub use write::{CorefileOutput, WriteError};
