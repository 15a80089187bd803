/** The names in a list of columns but the first, `row`, which SQLite gives. */
export const writtenColumns = (columns: string): readonly string[] =>
  columns
    .split(',')
    .map((name) => name.trim())
    .slice(1)
