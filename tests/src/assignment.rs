//! Which row gets which column, so that all of them together gain most.

/// Pairs rows with columns, each at most once, so that the sum of the gains is largest. Returns the column of each row.
///
/// `gain` is `None` for pairs that must not be; of the others those with a gain above 0 are worth having. The Hungarian
/// method with potentials (Kuhn 1955; Jonker and Volgenant 1987): rows² × (rows + columns) steps.
pub fn assign(rows: usize, columns: usize, gain: impl Fn(usize, usize) -> Option<f64>) -> Vec<Option<usize>> {
    // One more column for each row stands for "nothing": it costs 0, whoever takes it.
    let all = columns + rows;
    let cost = |row: usize, column: usize| {
        if column < columns { gain(row, column).map_or(f64::INFINITY, |gain| -gain) } else { 0.0 }
    };
    let (mut of_row, mut of_column) = (vec![0.0; rows], vec![0.0; all]);
    let mut owner: Vec<Option<usize>> = vec![None; all];
    for new in 0..rows {
        // The cheapest path from the new row to a free column, over columns whose owners move on.
        let mut distance = vec![f64::INFINITY; all];
        let mut previous: Vec<Option<usize>> = vec![None; all];
        let mut visited = vec![false; all];
        let (mut row, mut reached, mut last) = (new, 0.0, None);
        let free = loop {
            for column in (0..all).filter(|&column| !visited[column]) {
                let through = reached + cost(row, column) - of_row[row] - of_column[column];
                if through < distance[column] {
                    (distance[column], previous[column]) = (through, last);
                }
            }
            let nearest = (0..all)
                .filter(|&column| !visited[column])
                .min_by(|&a, &b| distance[a].total_cmp(&distance[b]))
                .expect("there are more columns than rows");
            (visited[nearest], reached, last) = (true, distance[nearest], Some(nearest));
            match owner[nearest] {
                Some(next) => row = next,
                None => break nearest,
            }
        };
        of_row[new] += reached;
        for column in (0..all).filter(|&column| visited[column]) {
            let change = reached - distance[column];
            of_column[column] -= change;
            if let Some(row) = owner[column] {
                of_row[row] += change;
            }
        }
        let mut column = free;
        while let Some(before) = previous[column] {
            owner[column] = owner[before];
            column = before;
        }
        owner[column] = Some(new);
    }
    let mut chosen = vec![None; rows];
    for (column, owner) in owner.iter().enumerate().take(columns) {
        if let Some(row) = owner {
            chosen[*row] = Some(column);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The best sum of all ways to pair, by trying them.
    fn best(gains: &[Vec<Option<f64>>], taken: &mut Vec<bool>) -> f64 {
        let Some((first, rest)) = gains.split_first() else { return 0.0 };
        let mut most = best(rest, taken);
        for (column, gain) in first.iter().enumerate() {
            if let Some(gain) = gain.filter(|_| !taken[column]) {
                taken[column] = true;
                most = most.max(gain + best(rest, taken));
                taken[column] = false;
            }
        }
        most
    }

    #[test]
    fn the_best_sum_may_leave_the_best_pair_and_never_takes_a_forbidden_one() {
        let check = |gains: &[&[f64]], expected: &[Option<usize>]| {
            let columns = gains.first().map_or(0, |row| row.len());
            let gain = |row: usize, column: usize| Some(gains[row][column]).filter(|gain| !gain.is_nan());
            assert_eq!(assign(gains.len(), columns, gain), expected, "{gains:?}");
        };
        check(&[], &[]);
        check(&[&[], &[]], &[None, None]);
        check(&[&[0.9, 0.8], &[0.8, 0.1]], &[Some(1), Some(0)]);
        check(&[&[0.9, 0.3], &[0.3, 0.1]], &[Some(0), Some(1)]);
        check(&[&[0.9, f64::NAN], &[0.8, f64::NAN]], &[Some(0), None]);
        check(&[&[f64::NAN, f64::NAN]], &[None]);
        check(&[&[-0.5, -0.1]], &[None]);
        check(&[&[0.5], &[0.7], &[0.6]], &[None, Some(0), None]);
    }

    proptest! {
        #[test]
        fn no_way_to_pair_gains_more(
            gains in (0usize..6, 0usize..6).prop_flat_map(|(rows, columns)| {
                prop::collection::vec(prop::collection::vec(prop::option::of(-0.2..1.0), columns), rows)
            })
        ) {
            let columns = gains.first().map_or(0, Vec::len);
            let chosen = assign(gains.len(), columns, |row, column| gains[row][column]);
            let mut taken = vec![false; columns];
            let mut sum = 0.0;
            for (row, column) in chosen.iter().enumerate() {
                let Some(column) = *column else { continue };
                prop_assert!(!std::mem::replace(&mut taken[column], true), "column {column} twice: {chosen:?}");
                sum += gains[row][column].expect("a forbidden pair");
            }
            let most = best(&gains, &mut vec![false; columns]);
            prop_assert!((sum - most).abs() < 1e-9, "{sum} of {most}: {chosen:?}");
        }
    }
}
