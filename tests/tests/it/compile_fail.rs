//! What must not compile does not, and the compiler's answer says what to write instead. The
//! answers are kept in `tests/compile-fail/*.stderr`; where they change for good reason,
//! `TRYBUILD=overwrite` writes them anew.

#[test]
fn misuse_is_refused_with_an_answer_that_helps() {
    trybuild::TestCases::new().compile_fail("compile-fail/*.rs");
}
