mod settings;
mod sources;
mod table;
mod url;
mod values;
pub(crate) fn run(_: &[String]) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
