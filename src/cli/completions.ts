import { type Command, commonOptions } from './command.ts'

/**
 * What may follow `words`, the words after `assay` that are complete already. None: the shell's file names.
 *
 * @param of every noun there is, and the commands of the noun that `words` begins with.
 */
export function completions(
  of: { readonly nouns: readonly string[]; readonly commands: readonly Command[] },
  words: readonly string[],
): readonly string[] {
  const { nouns, commands } = of
  if (words.length === 0) return nouns.filter((noun) => noun !== 'complete')
  const command = commands.find(({ name }) =>
    name.split(' ').every((part, index) => part === words[index]),
  )
  if (command !== undefined) return optionsOrValues(command, words)
  if (words.length > 1) return []
  return commands.flatMap(({ name }) => name.split(' ')[1] ?? [])
}

function optionsOrValues(command: Command, words: readonly string[]): readonly string[] {
  const options = [...command.options, ...commonOptions]
  const last = options.find(({ name }) => `--${name}` === words.at(-1))
  if (last?.value !== undefined) return last.choices ?? []
  const given = new Set(words)
  return options
    .filter(({ name, multiple }) => multiple === true || !given.has(`--${name}`))
    .map(({ name }) => `--${name}`)
}
