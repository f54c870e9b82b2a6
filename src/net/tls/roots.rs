//! The certificates that this machine trusts, found where Go finds them, which the reference is written in.

use super::Roots;
use crate::corefile::Loader;
use std::path::Path;

/// The file of all of them, by distribution. The first that can be read counts.
const FILES: [&str; 6] = [
    // Debian, Ubuntu, Arch; also most images.
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora and RHEL 6.
    "/etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE.
    "/etc/ssl/ca-bundle.pem",
    // OpenELEC.
    "/etc/pki/tls/cacert.pem",
    // CentOS and RHEL 7.
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // Alpine.
    "/etc/ssl/cert.pem",
];
/// Folders with a file for each, where there is no such file.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// The certificates that this machine trusts; none if there are no such files. `SSL_CERT_FILE` names another file,
/// `SSL_CERT_DIR` folders, divided by colons. Folders are read where no file has a certificate, and those of
/// `SSL_CERT_DIR` in any case.
pub(crate) fn system_roots(files: &dyn Loader) -> Roots {
    let variable = |name| files.environment(name).filter(|value| !value.is_empty());
    let (named_file, named_folders) = (variable("SSL_CERT_FILE"), variable("SSL_CERT_DIR"));
    let read = |path: &str| files.read(Path::new(path)).ok();
    let mut roots = Roots::none();
    let file = match &named_file {
        Some(path) => read(path),
        None => FILES.into_iter().find_map(read),
    };
    file.iter().for_each(|pem| roots.add(pem));
    let folders: Vec<&str> = match &named_folders {
        Some(folders) => folders.split(':').collect(),
        None if roots.is_empty() => FOLDERS.to_vec(),
        None => Vec::new(),
    };
    for folder in folders {
        for path in files.glob(&Path::new(folder).join("*")).unwrap_or_default() {
            files.read(&path).iter().for_each(|pem| roots.add(pem));
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, Files};
    use super::system_roots;

    /// How many roots are found on a machine with these files and variables.
    fn found(files: &[(&str, &str)], variables: &[(&str, &str)]) -> usize {
        let own = |list: &[(&str, &str)]| list.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        system_roots(&Files { files: own(files), variables: own(variables) }).store.len()
    }

    #[test]
    fn the_first_file_that_is_there_counts_and_folders_where_there_is_none() {
        let [a, b] = [Authority::new("a"), Authority::new("b")].map(|authority| authority.pem());
        let both = format!("# comment\n{a}\n{b}");
        let (debian, alpine) = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem");
        assert_eq!(found(&[], &[]), 0);
        assert_eq!(found(&[(debian, &both), (alpine, &a)], &[]), 2);
        assert_eq!(found(&[(alpine, &a)], &[]), 1);
        assert_eq!(
            found(&[("/etc/ssl/certs/a.pem", &a), ("/etc/ssl/certs/b.0", &b), ("/etc/ssl/certs/c", "none")], &[]),
            2
        );
    }

    #[test]
    fn variables_name_another_file_and_other_folders() {
        let [a, b] = [Authority::new("a"), Authority::new("b")].map(|authority| authority.pem());
        let debian = ("/etc/ssl/certs/ca-certificates.crt", format!("{a}\n{b}"));
        let files = [(debian.0, debian.1.as_str()), ("/own/ca.pem", &a), ("/one/b", &b)];
        assert_eq!(found(&files, &[("SSL_CERT_FILE", "/own/ca.pem")]), 1);
        assert_eq!(found(&files, &[("SSL_CERT_FILE", "/absent"), ("SSL_CERT_DIR", "/none:/one")]), 1);
        assert_eq!(found(&files, &[("SSL_CERT_DIR", "/one")]), 3, "beside the file");
        assert_eq!(found(&files, &[("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", "")]), 2, "as if they were not set");
    }
}
