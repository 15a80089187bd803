import assert from 'node:assert/strict'
import { test } from 'node:test'
import { allCommands, commandsOf, nouns } from './catalog.ts'
import { commandHelp, optionLabel, overview } from './help.ts'

const commands = await allCommands()

test('allCommands() has each name once, and each begins with the noun it is filed under', async () => {
  const names = commands.map(({ name }) => name)
  assert.equal(new Set(names).size, names.length)
  assert.ok(names.length >= 38)
  for (const noun of nouns) {
    const own = await commandsOf(noun)
    assert.ok(own.length > 0, noun)
    for (const { name } of own) assert.match(name, new RegExp(`^${noun}( [a-z0-9-]+)?$`))
  }
})

test('commandsOf() knows nothing of a name that every object has', async () => {
  for (const noun of ['', 'nix', 'constructor', '__proto__', 'toString'])
    assert.deepEqual(await commandsOf(noun), [])
})

for (const command of commands) {
  test(`commandHelp() of '${command.name}' fits, and documents every option once`, () => {
    const lines = commandHelp(command)
    for (const line of lines) assert.ok(line.length <= 120, line)
    assert.match(command.summary, /^([a-z]|[A-Z]{2}).*[^.]$/)
    const names = command.options.map(({ name }) => name)
    assert.equal(new Set(names).size, names.length, names.join())
    for (const option of command.options) {
      assert.match(option.name, /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/)
      assert.doesNotMatch(option.summary, /\.$/)
      assert.ok(option.required !== true || option.value !== undefined, option.name)
      assert.ok(lines.some((line) => line.startsWith(`  ${optionLabel(option)} `)))
      // Choices that are too many for the label stand in the summary.
      for (const one of option.choices ?? [])
        assert.ok(`${optionLabel(option)} ${option.summary}`.includes(one), one)
    }
  })
}

test('overview() lists every command and exit status in 120 columns', () => {
  const lines = overview(commands)
  for (const line of lines) assert.ok(line.length <= 120, line)
  for (const { name, summary } of commands)
    assert.ok(
      lines.some((line) => line.startsWith(`  ${name} `) && line.endsWith(summary)),
      name,
    )
  assert.ok(lines.includes('  6  unhealthy: it answered that something is wrong'))
})

test('overview() of a noun lists its commands alone', async () => {
  const lines = overview(await commandsOf('hsm'), 'hsm')
  assert.equal(lines[0], 'usage: assay hsm VERB [option…]')
  assert.equal(lines.filter((line) => line.startsWith('  ')).length, 5)
})

test('optionLabel() shows a few choices, else what the value is', () => {
  const option = { name: 'a', summary: 's' }
  assert.equal(optionLabel(option), '--a')
  assert.equal(optionLabel({ ...option, value: 'V' }), '--a V')
  assert.equal(optionLabel({ ...option, value: 'V', choices: ['x', 'y'] }), '--a x|y')
  assert.equal(optionLabel({ ...option, value: 'V', choices: ['elaborate', 'laborious'] }), '--a V')
})
