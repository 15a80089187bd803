// The tables of docs/migration-from-spire.md name keys and commands that there are.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { agentConfigSchema } from '#agent/config.ts'
import { allCommands } from '#cli/catalog.ts'
import { markdownTable } from '#config/reference.ts'
import { serverConfigSchema } from '#server/config.ts'

const page = await readFile(new URL('../../docs/migration-from-spire.md', import.meta.url), 'utf8')

/** What stands in backquotes in the right column of the table with this heading. */
function rightColumn(heading: string): readonly string[] {
  const table =
    page
      .slice(page.indexOf(`\n| ${heading}`))
      .trimStart()
      .split('\n\n')[0] ?? ''
  const cells = table
    .split('\n')
    .slice(2)
    .map((row) => row.split(' | ').at(-1) ?? '')
  const found = cells.flatMap((cell) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name),
  )
  assert.ok(found.length > 10, heading)
  return found
}

for (const [heading, schema] of [
  ["SPIRE's server | server.yaml", serverConfigSchema],
  ["SPIRE's agent | agent.yaml", agentConfigSchema],
] as const) {
  test(`every key in the table "${heading}" is one`, () => {
    const keys = new Set(
      [...markdownTable(schema).matchAll(/^\| `([^`]+)`/gm)].map(([, key]) => key),
    )
    const isKey = (name: string): boolean =>
      keys.has(name) || keys.values().some((key) => key?.startsWith(`${name}.`))
    assert.deepEqual(
      rightColumn(heading).filter((name) => !isKey(name)),
      [],
    )
  })
}

test('every command in the table of commands is one', async () => {
  const commands = await allCommands()
  const names = new Set(commands.map(({ name }) => `assay ${name}`))
  const written = rightColumn('SPIRE | Assay').filter((name) => name.startsWith('assay '))
  assert.deepEqual(
    written.filter((name) => !names.has(name)),
    [],
  )
})
