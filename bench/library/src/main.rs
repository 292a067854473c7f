mod ours;
mod theirs;
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let rows: Vec<usize> = std::env::args().nth(1).map_or(vec![1,64,256,1024,4096], |a| vec![a.parse().unwrap()]);
    for clients in rows {
        let n = match clients {1=>60_000, 64=>600_000, _=>1_500_000};
        let only = std::env::args().nth(2); for round in 0..3 { for (name, who) in [("ours", 0), ("openraft", 1)] { if only.as_deref().is_some_and(|o| o != name) { continue }
            let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let c0 = cpu();
            let (t, mut lat) = if who == 0 { rt.block_on(ours::run(clients, n, 0)) } else { rt.block_on(theirs::run(clients, n)) };
            let c = cpu() - c0;
            lat.sort_unstable();
            println!("{clients} #{round} {name}: {:.1} k/s cpu {:.2} us/op p50 {} us p99 {} us", n as f64 / t.as_secs_f64()/1e3, c * 1e6 / n as f64, lat[lat.len()/2]/1000, lat[lat.len()*99/100]/1000);
        }}
    }
}
