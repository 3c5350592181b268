//! Under what rooms are run.

/// Exit status of a launcher that could not put a policy into force.
pub const LACKS: i32 = 77;

/// Policies of `trampfd-host`, one inside the other.
pub struct Policy {
    pub layers: &'static [&'static str],
    /// What `tries` says under it.
    pub answers: &'static str,
    /// Only private mappings of files may be executed.
    pub files_only: bool,
}

const fn policy(layers: &'static [&'static str], answers: &'static str) -> Policy {
    Policy { layers, answers, files_only: false }
}

/// Outer layers first: what a filter denies is no business of mounts.
#[rustfmt::skip]
pub const POLICIES: &[Policy] = &[
    // Columns: those of `tries::NAMES`.
    policy(&["none"],                                                "0 0 0 0 0 0 0"),
    policy(&["mdwe"],                                                "0 0 0 0 0 EACCES 0"),
    policy(&["sec"],                                                 "0 0 0 0 0 EPERM 0"),
    policy(&["memfd-noexec-1"],                                      "0 0 0 0 0 0 0"),
    policy(&["memfd-noexec"],                                        "0 EACCES 0 0 0 0 0"),
    policy(&["noexec-tmp"],                                          "0 0 0 EPERM EPERM 0 0"),
    policy(&["no-proc"],                                             "0 0 0 0 0 0 ENOENT"),
    policy(&["noexec-dev"],                                          "0 0 0 0 EPERM 0 0"),
    policy(&["chroot"],                                              "0 0 0 0 ENOENT 0 ENOENT"),
    policy(&["landlock"],                                            "0 0 0 EACCES EACCES 0 0"),
    policy(&["nowx"],                                                "0 EACCES 0 EPERM EPERM EPERM 0"),
    policy(&["memfd-enosys"],                                        "ENOSYS ENOSYS ENOSYS 0 0 0 0"),
    policy(&["memfd-eperm"],                                         "EPERM EPERM EPERM 0 0 0 0"),
    policy(&["noexec-dev", "memfd-enosys"],                          "ENOSYS ENOSYS ENOSYS 0 EPERM 0 0"),
    policy(&["noexec-dev", "memfd-eperm"],                           "EPERM EPERM EPERM 0 EPERM 0 0"),
    policy(&["noexec-tmp", "memfd-enosys"],                          "ENOSYS ENOSYS ENOSYS EPERM EPERM 0 0"),
    policy(&["noexec-tmp", "memfd-eperm"],                           "EPERM EPERM EPERM EPERM EPERM 0 0"),
    policy(&["noexec-tmp", "memfd-eperm", "mdwe"],                   "EPERM EPERM EPERM EPERM EPERM EACCES 0"),
    policy(&["memfd-noexec", "noexec-tmp", "no-proc", "sec", "mdwe"], "0 EACCES 0 EPERM EPERM EPERM ENOENT"),
    Policy { files_only: true, ..policy(&["strict"],                 "EPERM EPERM EPERM 0 0 EPERM 0") },
    Policy { files_only: true, ..policy(&["strict", "mdwe"],         "EPERM EPERM EPERM 0 0 EPERM 0") },
];
