// assay-agent: gives the workloads of one node their identities.
import process from 'node:process'
import { version } from '#base/version.ts'
import { runDaemon } from '#daemon/run-daemon.ts'
import { activatedSockets } from '#host/socket-activation.ts'
import { Agent } from './agent.ts'
import { agentConfigSchema, configWarnings } from './config.ts'

const usage = `assay-agent ${version}: gives the workloads of this node their identities

  assay-agent run --config FILE        serve until SIGTERM or SIGINT; SIGHUP reads FILE again
  assay-agent validate --config FILE   name everything that is wrong in the file

  --help      this text
  --version   the version

Exit status: 0, all is well; 1, it failed and may be tried again; 2, somebody has to put something right first;
3, the server has banned this node.`

process.exitCode = await runDaemon(
  {
    name: 'agent',
    usage,
    schema: agentConfigSchema,
    // What the agent keeps is for its own user; sockets get the modes they need by name.
    umask: 0o022,
    warnings: configWarnings,
    problems: async () => [],
    open: (config, daemonProcess) =>
      Agent.open(config, {
        ...daemonProcess,
        activated: activatedSockets(process.env, process.pid),
      }),
    exitStatus: (end) => (end === 'banned' ? 3 : 0),
  },
  process.argv.slice(2),
)
