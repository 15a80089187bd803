import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { messageOf } from '#base/errors.ts'
import { ConfigError } from './config-error.ts'
import { invalid, type Reading, type Schema } from './schema.ts'
import { parseTree } from './tree.ts'

/**
 * Reads and checks a whole configuration.
 *
 * @param file names the text in messages; relative paths in it are resolved from its directory.
 * @throws ConfigError with every problem found.
 */
export function parseConfig<T>(
  schema: Schema<T>,
  text: string,
  { file }: { readonly file: string },
): T {
  const { tree, problems } = parseTree(text, file)
  if (problems.length > 0) throw new ConfigError(problems)
  const reading: Reading = { file, directory: dirname(resolve(file)), problems: [] }
  const value = schema.read(tree, reading)
  if (value === invalid) throw new ConfigError(reading.problems)
  return value
}

/**
 * {@link parseConfig} of a file.
 *
 * @throws ConfigError also when the file cannot be read.
 */
export async function loadConfig<T>(schema: Schema<T>, file: string): Promise<T> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    const message = `cannot read the configuration: ${messageOf(error)}`
    throw new ConfigError([{ file, line: 1, column: 1, key: '', message }], { cause: error })
  }
  return parseConfig(schema, text, { file })
}
