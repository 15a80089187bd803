import { existsSync } from 'node:fs'
import { agentConfigSchema, configWarnings as agentWarnings } from '#agent/config.ts'
import { serverConfigSchema, configWarnings as serverWarnings } from '#server/config.ts'
import { type Command, type CommandContext, type Option, optional, UsageError } from '../command.ts'
import { agentChecks } from '../doctor/agent-checks.ts'
import { configurationFindings } from '../doctor/configuration.ts'
import { type Finding, runChecks } from '../doctor/finding.ts'
import { socketFindings } from '../doctor/machine.ts'
import { serverChecks } from '../doctor/server-checks.ts'
import { count } from '../print.ts'

const configFiles = { server: '/etc/assay/server.yaml', agent: '/etc/assay/agent.yaml' } as const

type Side = keyof typeof configFiles

const configOption = (side: Side): Option => ({
  name: 'config',
  value: 'FILE',
  summary: `the ${side}'s configuration; ${configFiles[side]} when absent`,
})

const examine: Readonly<
  Record<Side, (file: string, context: CommandContext) => Promise<readonly Finding[]>>
> = {
  async server(file, context) {
    const { config, findings } = await configurationFindings(
      serverConfigSchema,
      file,
      serverWarnings,
    )
    if (config === undefined) return findings
    const socket = await socketFindings('socket', config.socket_path, 'assay-server')
    const subject = { config, runs: socket.state === 'answers' }
    return [...findings, ...socket.findings, ...(await runChecks(serverChecks, subject, context))]
  },
  async agent(file, context) {
    const { config, findings } = await configurationFindings(agentConfigSchema, file, agentWarnings)
    if (config === undefined) return findings
    return [...findings, ...(await runChecks(agentChecks, { config }, context))]
  },
}

const marks = { ok: 'ok     ', warning: 'warning', problem: 'PROBLEM' } as const

function print(context: CommandContext, findings: readonly Finding[]): void {
  const width = Math.max(...findings.map(({ check }) => check.length))
  for (const { check, level, what, why, remedy } of findings) {
    context.print(`${marks[level]}  ${check.padEnd(width)}  ${what}`)
    const indent = ' '.repeat(width + 11)
    if (why !== undefined) context.print(`${indent}why:  ${why}`)
    if (remedy !== undefined) context.print(`${indent}mend: ${remedy}`)
  }
}

async function run(sides: readonly (readonly [Side, string])[], context: CommandContext) {
  const results: { side: Side; findings: readonly Finding[] }[] = []
  for (const [side, file] of sides) {
    results.push({ side, findings: await examine[side](file, context) })
  }
  const problems = results
    .flatMap(({ findings }) => findings)
    .filter(({ level }) => level === 'problem').length
  if (problems > 0) context.setStatus(6)
  if (context.json) {
    const findings = results.flatMap(({ side, findings: of }) =>
      of.map((finding) => ({ side, ...finding })),
    )
    context.print(JSON.stringify({ problems, findings }))
    return
  }
  for (const { side, findings } of results) {
    if (results.length > 1) context.print(`${side}:`)
    print(context, findings)
  }
  context.note(problems === 0 ? 'nothing is wrong' : count(problems, 'problem'))
}

const details = `
Looks at configuration, permissions, sockets, disk, clock, TPM or HSM, DNS, TLS, datastore, versions
and the systemd unit, and says of each thing that is wrong why it matters and what mends it. Changes
nothing, and never tries a PIN. Exit status 6 when there is a problem.`

const side = (name: Side): Command => ({
  name: `doctor ${name}`,
  summary:
    name === 'server'
      ? 'what is wrong with the server on this machine, and what mends it'
      : 'what is wrong with the agent on this machine, and what mends it',
  options: [configOption(name)],
  details,
  async run(context) {
    await run([[name, optional(context, 'config') ?? configFiles[name]]], context)
  },
})

const both: Command = {
  name: 'doctor',
  summary: 'the same, for whichever of the two is configured here',
  options: [],
  details,
  async run(context) {
    const sides = (['server', 'agent'] as const)
      .map((name) => [name, configFiles[name]] as const)
      .filter(([, file]) => existsSync(file))
    if (sides.length === 0) {
      throw new UsageError(
        `there is neither ${configFiles.server} nor ${configFiles.agent}; say which file: assay doctor server --config FILE`,
      )
    }
    await run(sides, context)
  },
}

export const commands: readonly Command[] = [side('server'), side('agent'), both]
