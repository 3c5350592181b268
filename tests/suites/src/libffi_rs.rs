use vm_fetch::error::Result;
pub fn run(_: &crate::places::Places, _: &mut crate::report::Report) -> Result<()> {
    Ok(())
}
